//! Stage `ingest` on folders and zips, good, bad and hostile.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, in its helpers too")]

#[allow(dead_code, reason = "shared between test files")]
mod scripted_server;

use std::{
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

use image::{ImageFormat, Rgb, RgbImage};
use nephros_core::hint::Hint;
use nephros_train::{
    config::{CONFIG_TEMPLATE, Config, PARAMS_TEMPLATE, Params},
    ingest::{IngestError, IngestSummary, Network, Report, extract, ingest, ingest_over},
    manifest::Manifest,
    progress::Silent,
    stages::Project,
};
use scripted_server::{Reply, Server, impatient};
use zip::{ZipWriter, write::SimpleFileOptions};

/// A project folder with a source.
struct Case {
    folder: tempfile::TempDir,
    project: Project,
}

impl Case {
    fn new(source: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse(Path::new("config.yaml"), CONFIG_TEMPLATE).unwrap();
        config.data_ingestion.source_url = source.into();
        let params = Params::parse(Path::new("params.yaml"), PARAMS_TEMPLATE).unwrap();
        let project = Project { root: folder.path().into(), config, params };
        Self { folder, project }
    }

    /// A folder `data/` with three images a class.
    fn with_images() -> Self {
        let case = Self::new("data");
        for (class, shade) in [("Normal", 10), ("Tumor", 90)] {
            for index in 0..3 {
                case.write(&format!("data/set/{class}/{index}.png"), &png(shade + index));
            }
        }
        case
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }

    fn ingest(&self) -> Result<IngestSummary, IngestError> {
        let result = ingest(&self.project, &Silent);
        if result.is_err() {
            assert!(!self.artifact("manifest.csv").exists(), "a failed run left a manifest");
        }
        let leftovers = fs_err::read_dir(self.artifact("")).unwrap().map(|entry| entry.unwrap().file_name());
        for name in leftovers {
            assert!(!name.to_string_lossy().starts_with(".ingest-"), "{} was left", name.display());
        }
        result
    }

    fn artifact(&self, path: &str) -> PathBuf {
        self.path("artifacts/data_ingestion").join(path)
    }

    fn manifest(&self) -> Manifest {
        Manifest::read(&self.artifact("manifest.csv"), self.artifact("kidney-ct-scan-image")).unwrap()
    }

    fn report(&self) -> Report {
        serde_json::from_slice(&fs_err::read(self.artifact("ingest_report.json")).unwrap()).unwrap()
    }

    /// Error and hint, without this test's folder.
    fn complaint(&self) -> String {
        let error = self.ingest().unwrap_err();
        let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("error: {error}{hint}").replace(&self.folder.path().display().to_string(), "DIR")
    }

    /// [`Self::complaint`] for a `data.zip`.
    fn zip_complaint(bytes: &[u8]) -> String {
        let case = Self::new("data.zip");
        case.write("data.zip", bytes);
        let complaint = case.complaint();
        assert!(!case.artifact("kidney-ct-scan-image").exists());
        complaint
    }
}

fn png(shade: u8) -> Vec<u8> {
    let image = RgbImage::from_fn(6, 4, |x, y| Rgb([shade, x as u8, y as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn zip_of(build: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    build(&mut writer);
    writer.finish().unwrap().into_inner()
}

fn add(writer: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, bytes: &[u8]) {
    writer.start_file(name, SimpleFileOptions::default()).unwrap();
    writer.write_all(bytes).unwrap();
}

fn good_zip() -> Vec<u8> {
    zip_of(|writer| {
        for (class, shade) in [("Normal", 10), ("Tumor", 90)] {
            for index in 0..3 {
                add(writer, &format!("any/root/{class}/{index}.png"), &png(shade + index));
            }
        }
        add(writer, "__MACOSX/any/root/Normal/._0.png", b"finder");
    })
}

#[test]
fn a_folder_becomes_class_folders_and_a_manifest() {
    let case = Case::with_images();
    let summary = case.ingest().unwrap();
    assert_eq!(summary.classes, [("Normal".to_owned(), 3), ("Tumor".to_owned(), 3)]);
    assert_eq!((summary.images, summary.patients, summary.quarantined), (6, 0, 0));
    assert_eq!(summary.root, case.artifact("kidney-ct-scan-image"));
    let manifest = case.manifest();
    let first = &manifest.records[0];
    assert_eq!((first.path.as_str(), first.width, first.height), ("Normal/0.png", 6, 4));
    assert_eq!(fs_err::read(manifest.root.join("Tumor/2.png")).unwrap(), png(92));
    assert!(case.path("data/set/Normal/0.png").exists(), "the source stays");
}

#[test]
fn a_zip_is_found_to_be_the_same_dataset() {
    let case = Case::new("data.zip");
    case.write("data.zip", &good_zip());
    case.ingest().unwrap();
    let folder = Case::with_images();
    folder.ingest().unwrap();
    assert_eq!(case.manifest().digest(), folder.manifest().digest());
}

#[test]
fn an_unchanged_dataset_is_kept_and_a_changed_one_made_again() {
    let case = Case::with_images();
    case.ingest().unwrap();
    let written = || fs_err::metadata(case.artifact("manifest.csv")).unwrap().modified().unwrap();
    let first = written();
    assert_eq!(case.ingest().unwrap(), case.ingest().unwrap());
    assert_eq!(written(), first);

    fs_err::write(case.artifact("kidney-ct-scan-image/Normal/0.png"), png(77)).unwrap();
    case.ingest().unwrap();
    assert_eq!(fs_err::read(case.artifact("kidney-ct-scan-image/Normal/0.png")).unwrap(), png(10));

    case.write("data/set/Normal/3.png", &png(13));
    assert_eq!(case.ingest().unwrap().images, 7);
}

#[test]
fn what_cannot_be_decoded_is_quarantined() {
    let case = Case::with_images();
    case.write("data/set/Normal/broken.png", &png(5)[..40]);
    case.write("data/set/Tumor/notes.txt", b"a remark");
    let summary = case.ingest().unwrap();
    assert_eq!((summary.images, summary.quarantined), (6, 2));
    let list = fs_err::read_to_string(case.artifact("quarantine.csv")).unwrap();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines[0], "path,reason");
    assert!(lines[1].starts_with("Normal/broken.png,"), "{list}");
    assert!(lines[2].starts_with("Tumor/notes.txt,"), "{list}");
    assert_eq!(fs_err::read(case.artifact("quarantine/Tumor/notes.txt")).unwrap(), b"a remark");
    assert!(!case.artifact("kidney-ct-scan-image/Normal/broken.png").exists());

    fs_err::remove_file(case.path("data/set/Normal/broken.png")).unwrap();
    assert_eq!(case.ingest().unwrap().quarantined, 1);
    assert!(!case.artifact("quarantine/Normal/broken.png").exists());
}

#[test]
fn duplicates_and_conflicts_are_reported() {
    let case = Case::with_images();
    case.write("data/set/Normal/again.png", &png(10));
    case.write("data/set/Normal/tumor too.png", &png(91));
    let summary = case.ingest().unwrap();
    assert_eq!((summary.images, summary.duplicates, summary.conflicts), (8, 1, 2));
    let report = case.report();
    assert_eq!(report.duplicates, [["Normal/0.png", "Normal/again.png"]]);
    assert_eq!(report.conflicts, [["Normal/tumor too.png", "Tumor/1.png"]]);
}

#[test]
fn patients_come_from_the_csv_beside_the_class_folders() {
    let case = Case::with_images();
    let mut csv = "path,class,patient\n".to_owned();
    for (class, index, patient) in [
        ("Normal", 0, "P1"),
        ("Normal", 1, "P1"),
        ("Normal", 2, "P2"),
        ("Tumor", 0, "P3"),
        ("Tumor", 1, "P4"),
        ("Tumor", 9, "P4"),
    ] {
        csv.push_str(&["set/", class, "/", &index.to_string(), ".png,", class, ",", patient, "\n"].concat());
    }
    case.write("data/patients.csv", csv.as_bytes());
    let summary = case.ingest().unwrap();
    assert_eq!(summary.patients, 4);
    let report = case.report();
    assert_eq!(report.images_without_patient, 1); // Tumor/2.png
    assert_eq!(report.unmatched_patient_lines, [(7, "set/Tumor/9.png".to_owned())]);
    let patients: Vec<String> = case.manifest().records.into_iter().map(|record| record.patient).collect();
    assert_eq!(patients, ["P1", "P1", "P2", "P3", "P4", ""]);
}

#[test]
fn a_csv_that_is_named_is_read_and_part_of_what_must_not_change() {
    let mut case = Case::with_images();
    case.project.config.data_ingestion.patients_file = Some("series.csv".into());
    insta::assert_snapshot!(case.complaint(), @r"
    error: `patients_file`: `DIR/series.csv` does not exist
    hint: correct `patients_file` in config.yaml, or remove it
    ");
    let line = |class: &str, index: u8, series: &str| format!("{class}/{index}.png,{class},{series}\n");
    let write = |last: &str| {
        let mut csv = "path,class,series\n".to_owned();
        for (index, series) in [(0, "A"), (1, "B"), (2, "B")] {
            csv += &line("Normal", index, series);
            csv += &line("Tumor", index, if index == 2 { last } else { "C" });
        }
        case.write("series.csv", csv.as_bytes());
    };
    write("C");
    insta::assert_snapshot!(case.complaint(), @r"
    error: `data`: expected at least 2 patients in class `Tumor`, got 1 with 3 images
    hint: add patients; `SPLIT_BY: random` works too, but its scores say nothing about new patients
    ");
    write("D");
    assert_eq!(case.ingest().unwrap().patients, 4);
    write("E");
    case.ingest().unwrap();
    assert_eq!(case.manifest().records[5].patient, "E");
    case.write("series.csv", b"path,class,series\nNormal/0.png,Tumor,A\n");
    fs_err::remove_file(case.artifact("manifest.csv")).unwrap();
    insta::assert_snapshot!(case.complaint(), @r"
    error: `DIR/series.csv` line 2: expected class `Normal` for `Normal/0.png`, as its folder says, got `Tumor`
    hint: move the image to the right class folder, or correct the line
    ");
}

#[test]
fn too_little_to_split_says_what_was_found() {
    let case = Case::new("data");
    case.write("data/Normal/1.png", &png(1));
    case.write("data/Normal/2.png", &png(2));
    case.write("data/Tumor/1.png", &png(3));
    case.write("data/Tumor/2.png", b"damaged");
    let few = case.complaint();
    fs_err::remove_dir_all(case.path("data/Tumor")).unwrap();
    fs_err::create_dir(case.path("data/Tumor")).unwrap();
    let empty = case.complaint();
    fs_err::remove_dir_all(case.path("data")).unwrap();
    let nothing = case.complaint();
    insta::assert_snapshot!([few, empty, nothing].join("\n\n"));
}

#[test]
fn a_source_within_the_destination_is_refused() {
    let case = Case::new(".");
    case.write("Normal/1.png", &png(1));
    insta::assert_snapshot!(case.complaint(), @r"
    error: `source_URL`: expected a folder apart from `DIR/artifacts/data_ingestion/kidney-ct-scan-image`, where `ingest` writes, got `.`
    hint: move the images to a folder of their own, such as `data/`
    ");
}

#[test]
fn a_failed_run_leaves_the_earlier_dataset_as_it_was() {
    let case = Case::with_images();
    case.ingest().unwrap();
    let before = case.manifest();
    fs_err::remove_dir_all(case.path("data/set/Tumor")).unwrap();
    assert!(ingest(&case.project, &Silent).is_err());
    assert_eq!(case.manifest(), before);
    assert!(case.artifact("kidney-ct-scan-image/Tumor/0.png").exists());
}

#[test]
fn hostile_zips_are_refused_by_name() {
    let slip = |name: &'static str| Case::zip_complaint(&zip_of(|writer| add(writer, name, &png(1))));
    let link = zip_of(|writer| {
        writer.add_symlink("Normal/1.png", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    });
    let bomb = zip_of(|writer| add(writer, "Normal/1.png", &vec![0; 20_000_000]));
    let texts = [
        slip("../../evil.png"),
        slip("/etc/evil.png"),
        slip("C:/evil.png"),
        slip("Normal\\..\\..\\evil.png"),
        Case::zip_complaint(&link),
        // DEFLATE packs zeros about 1000 to 1; the limit is 200.
        Case::zip_complaint(&bomb).split(", got").next().unwrap().to_owned(),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn damaged_and_encrypted_zips_and_other_files_are_told_apart() {
    let stored = zip_of(|writer| {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        writer.start_file("Normal/1.png", options).unwrap();
        writer.write_all(b"some bytes that are not compressed").unwrap();
    });
    let mut wrong_crc = stored.clone();
    let at = stored.windows(4).position(|window| window == b"some").unwrap();
    wrong_crc[at] ^= 1;
    let mut encrypted = stored.clone();
    // Bit 0 of the general purpose flags (APPNOTE 4.4.4), at 6 in the local and 8 in the central header.
    for (signature, offset) in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)] {
        let at = stored.windows(4).position(|window| window == signature).unwrap();
        encrypted[at + offset] |= 1;
    }
    let texts = [
        Case::zip_complaint(&stored[..stored.len() - 30]),
        Case::zip_complaint(&wrong_crc),
        Case::zip_complaint(&encrypted),
        Case::zip_complaint(b"<!DOCTYPE html><html>Sorry</html>"),
        Case::zip_complaint(b"\x1f\x8b\x08\x00 a tarball"),
        Case::zip_complaint(b""),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn limits_hold_and_a_lying_length_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let zip = folder.path().join("data.zip");
    fs_err::write(&zip, good_zip()).unwrap();
    let out = folder.path().join("out");
    let limits = extract::Limits { max_files: 6, ..extract::Limits::default() };
    let result = extract::extract(&zip, &out, &limits, &Silent);
    assert!(matches!(result, Err(extract::ExtractError::TooLarge { what: "files", limit: 6, got: 7, .. })));
    let limits = extract::Limits { max_bytes: 100, ..extract::Limits::default() };
    let result = extract::extract(&zip, &out, &limits, &Silent);
    assert!(matches!(result, Err(extract::ExtractError::TooLarge { what: "bytes", .. })));

    // 1000 zeros whose headers say 10: at 22 in the local and 24 in the central header.
    let mut lying = zip_of(|writer| add(writer, "a", &[0; 1000]));
    for (signature, offset) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let at = lying.windows(4).position(|window| window == signature).unwrap();
        lying[at + offset..at + offset + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    fs_err::write(&zip, lying).unwrap();
    let result = extract::extract(&zip, &out, &extract::Limits::default(), &Silent);
    assert!(matches!(result, Err(extract::ExtractError::Damaged { .. })), "{result:?}");
    assert!(!out.exists());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "only the zip is left");
}

#[test]
fn a_zip_within_the_zip_stays_closed() {
    let case = Case::new("data.zip");
    let mut bytes = Cursor::new(good_zip());
    let mut writer = ZipWriter::new_append(&mut bytes).unwrap();
    writer.start_file("any/root/Tumor/more.zip", SimpleFileOptions::default()).unwrap();
    writer.write_all(&good_zip()).unwrap();
    writer.finish().unwrap();
    case.write("data.zip", bytes.get_ref());
    let summary = case.ingest().unwrap();
    assert_eq!((summary.images, summary.quarantined), (6, 1));
}

fn network(base: &str) -> Network {
    Network { drive: base.into(), downloader: impatient() }
}

#[test]
fn a_download_is_kept_until_its_source_changes() {
    let server = Server::start(|_, _| Reply::new(200, good_zip()));
    let mut case = Case::new(&format!("{}/set.zip", server.base));
    for _ in 0..2 {
        assert_eq!(ingest_over(&case.project, &network(""), &Silent).unwrap().images, 6);
    }
    assert_eq!(server.requests().len(), 1);
    fs_err::write(case.artifact("data.zip"), "damaged").unwrap();
    ingest_over(&case.project, &network(""), &Silent).unwrap();
    assert_eq!(server.requests().len(), 2);
    case.project.config.data_ingestion.source_url = format!("{}/other.zip", server.base);
    ingest_over(&case.project, &network(""), &Silent).unwrap();
    assert_eq!(server.requests()[2], "/other.zip");
}

#[test]
fn a_zip_put_there_by_hand_saves_the_download() {
    let case = Case::new("https://drive.google.com/file/d/FID/view");
    case.write("artifacts/data_ingestion/data.zip", &good_zip());
    // Nothing listens at the address.
    assert_eq!(ingest_over(&case.project, &network("http://127.0.0.1:1"), &Silent).unwrap().images, 6);
}

#[test]
fn a_web_page_in_disguise_is_not_kept() {
    let server = Server::start(|_, _| {
        Reply::new(200, "<!DOCTYPE html><title>Quota</title>").header("Content-Type", "application/zip")
    });
    let case = Case::new(&format!("{}/set.zip", server.base));
    let error = ingest_over(&case.project, &network(""), &Silent).unwrap_err();
    assert!(error.hint().unwrap().contains("web page"), "{error}");
    assert!(!case.artifact("data.zip").exists());
}

#[test]
fn a_google_drive_link_reaches_google_drive() {
    let server = Server::start(|_, _| {
        Reply::new(200, good_zip()).header("Content-Disposition", "attachment; filename=\"x.zip\"")
    });
    let case = Case::new("https://drive.google.com/file/d/FID/view?usp=sharing");
    ingest_over(&case.project, &network(&server.base), &Silent).unwrap();
    assert_eq!(server.requests(), ["/uc?id=FID"]);
}

#[test]
fn another_zip_than_the_configured_one_is_refused() {
    let mut case = Case::new("data.zip");
    case.write("data.zip", &good_zip());
    case.project.config.data_ingestion.md5 = Some("0".repeat(32));
    let complaint = case.complaint();
    assert!(complaint.starts_with(&format!("error: `data.zip`: expected MD5 `{}`, got `", "0".repeat(32))));
}

/// A file of the shared scans, unless this machine has none.
fn shared(name: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = std::env::var_os("NEPHROS_SHARED").map_or(default, PathBuf::from).join("data").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

#[test]
fn the_465_real_scans() {
    let Some(zip) = shared("kidney-ct-scan-image.zip") else { return };
    let case = Case::new(&zip.display().to_string());
    let summary = case.ingest().unwrap();
    assert_eq!(summary.classes, [("Normal".to_owned(), 240), ("Tumor".to_owned(), 225)]);
    assert_eq!((summary.images, summary.bytes, summary.quarantined), (465, 58_936_381, 0));
    assert!(case.artifact("kidney-ct-scan-image/Normal/Normal- (7).jpg").exists());
    assert_eq!(case.ingest().unwrap(), summary);
}

#[test]
fn two_classes_of_the_real_four_with_their_series() {
    let (Some(zip), Some(csv)) = (shared("kidney-ct-4class.zip"), shared("kidney-ct-4class-series.csv"))
    else {
        return;
    };
    let mut case = Case::new(&zip.display().to_string());
    case.project.config.data_ingestion.patients_file = Some(csv);
    insta::assert_snapshot!(case.complaint().replace(&zip.display().to_string(), "ZIP"), @r"
    error: `CLASSES`: expected 2 class folders in `ZIP`, got in `kidney-ct-4class`: `Cyst` (242 files, 242 images), `Normal` (449 files, 449 images), `Stone` (142 files, 142 images), `Tumor` (319 files, 319 images)
    hint: set `CLASSES: 4`, or name the folders to use in `CLASS_NAMES`
    ");
    case.project.params.class_names = Some(vec!["Normal".into(), "Tumor".into()]);
    let summary = case.ingest().unwrap();
    // 449 Normal and 319 Tumor slices.
    assert_eq!((summary.images, summary.patients, summary.quarantined), (768, 18, 0));
    let report = case.report();
    assert_eq!((report.images_without_patient, report.unmatched_patient_lines.len()), (0, 0));
    assert_eq!(report.unused_folders.values().sum::<usize>(), 384); // 242 Cyst, 142 Stone
}
