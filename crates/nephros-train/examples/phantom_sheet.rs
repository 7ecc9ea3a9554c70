//! Draws a contact sheet of phantom patients, the middle slice of each, to judge them by eye.
//!
//! `cargo run -p nephros-train --example phantom_sheet -- SHEET.png [ROWS] [COLUMNS] [SEED] [SIZE] [CLASS]`

use std::{error::Error, io::Write, time::Instant};

use image::GrayImage;
use nephros_train::phantom::{Cohort, Patient, PhantomClass, slice};

const CLASSES: [PhantomClass; 4] =
    [PhantomClass::Normal, PhantomClass::Tumor, PhantomClass::Cyst, PhantomClass::Stone];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("name the file to write, such as sheet.png")?;
    let mut number = |default: usize| -> Result<usize, Box<dyn Error>> {
        Ok(arguments.next().map(|text| text.parse()).transpose()?.unwrap_or(default))
    };
    let (rows, columns, seed, size) = (number(4)?, number(4)?, number(42)?, number(512)?);
    let only = arguments.next();
    let mut classes = CLASSES.to_vec();
    classes.retain(|class| only.as_ref().is_none_or(|name| name == class.name()));
    let patients = rows * columns;
    let cohort = Cohort { patients, slices: 1, seed: seed as u64, classes, size, ..Cohort::default() };
    let mut sheet = GrayImage::new((columns * size) as u32, (rows * size) as u32);
    let start = Instant::now();
    for index in 0..patients {
        let patient = Patient::new(&cohort, index);
        let (center, width) = patient.window();
        let grey = slice(&patient, 0).windowed(center, width);
        let tile = GrayImage::from_raw(size as u32, size as u32, grey).ok_or("a slice is not square")?;
        let (column, row) = (index % columns, index / columns);
        image::imageops::replace(&mut sheet, &tile, (column * size) as i64, (row * size) as i64);
    }
    let each = start.elapsed().as_secs_f64() * 1000.0 / patients as f64;
    sheet.save(&path)?;
    Ok(writeln!(std::io::stdout(), "{patients} slices, {each:.1} ms each")?)
}
