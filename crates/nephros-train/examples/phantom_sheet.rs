//! Draws a contact sheet of a phantom cohort: one row a patient, with its lesion's slices.
//!
//! `cargo run -p nephros-train --example phantom_sheet -- SHEET.png [ROWS] [COLUMNS] [SEED] [SIZE]`

use std::{error::Error, time::Instant};

use image::GrayImage;
use nephros_train::phantom::{Cohort, Patient, PhantomClass, slice};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("name the file to write, such as sheet.png")?;
    let mut number = |default: usize| -> Result<usize, Box<dyn Error>> {
        Ok(arguments.next().map(|text| text.parse()).transpose()?.unwrap_or(default))
    };
    let (rows, columns, seed, size) = (number(4)?, number(4)?, number(42)?, number(512)?);
    let classes = vec![PhantomClass::Normal, PhantomClass::Tumor, PhantomClass::Cyst, PhantomClass::Stone];
    let cohort =
        Cohort { patients: rows, slices: columns, seed: seed as u64, classes, size, ..Cohort::default() };
    let mut sheet = GrayImage::new((columns * size) as u32, (rows * size) as u32);
    let start = Instant::now();
    for row in 0..rows {
        let patient = Patient::new(&cohort, row);
        let (center, width) = patient.window();
        for column in 0..columns {
            let grey = slice(&patient, column).windowed(center, width);
            let tile = GrayImage::from_raw(size as u32, size as u32, grey).ok_or("a slice is not square")?;
            image::imageops::replace(&mut sheet, &tile, (column * size) as i64, (row * size) as i64);
        }
    }
    let each = start.elapsed().as_secs_f64() * 1000.0 / (rows * columns) as f64;
    sheet.save(&path)?;
    writeln_summary(rows * columns, each)
}

fn writeln_summary(slices: usize, each: f64) -> Result<(), Box<dyn Error>> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{slices} slices, {each:.1} ms each")?)
}
