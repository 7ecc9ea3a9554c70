//! Configuration files as users write them, and what they are told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::Path;

use nephros_core::{hint::Hint, network::Architecture};
use nephros_train::config::{
    CONFIG_TEMPLATE, Config, ConfigError, PARAMS_DEMO_TEMPLATE, PARAMS_TEMPLATE, Params, WeightsSource,
};

const REFERENCE_PARAMS: &str = "AUGMENTATION: True\nIMAGE_SIZE: [224, 224, 3]\nBATCH_SIZE: 16\nINCLUDE_TOP: False\n\
                                EPOCHS: 1\nCLASSES: 2\nWEIGHTS: imagenet\nLEARNING_RATE: 0.01\n";

fn params(text: &str) -> Result<Params, ConfigError> {
    Params::parse(Path::new("params.yaml"), text)
}

/// What is printed for a params.yaml with `from` replaced by `to`.
fn complaint(from: &str, to: &str) -> String {
    assert!(REFERENCE_PARAMS.contains(from));
    printed(&params(&REFERENCE_PARAMS.replace(from, to)).unwrap_err())
}

fn printed(error: &ConfigError) -> String {
    match error.hint() {
        Some(hint) => format!("error: {error}\nhint: {hint}"),
        None => format!("error: {error}"),
    }
}

#[test]
fn the_reference_file_is_accepted_with_our_defaults() {
    let params = params(REFERENCE_PARAMS).unwrap();
    assert!(params.augmentation);
    assert!(!params.include_top);
    assert_eq!(params.weights, WeightsSource::Imagenet);
    assert_eq!(params.image_size, [224, 224, 3]);
    assert_eq!(params.seed, 42);
}

#[test]
fn unknown_and_missing_and_doubled_keys() {
    insta::assert_snapshot!(complaint("EPOCHS: 1", "EPOCH: 1"));
    insta::assert_snapshot!(complaint("EPOCHS: 1\n", ""), @r"
    error: `params.yaml`: expected key `EPOCHS`, got none
    hint: add a line `EPOCHS: …`; `nephros init` shows an example
    ");
    insta::assert_snapshot!(complaint("EPOCHS: 1\n", "EPOCHS: 1\nEPOCHS: 2\n"), @r"
    error: `params.yaml` line 6, column 1: expected `EPOCHS` once, got it again
    hint: keep one of the two lines
    ");
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(complaint("EPOCHS: 1", "EPOCHS: many # really"), @r"
    error: `params.yaml` line 5: `EPOCHS`: expected a whole number, 0 or more, got `many`
    ");
    insta::assert_snapshot!(complaint("EPOCHS: 1", "EPOCHS: -1"), @r"
    error: `params.yaml` line 5: `EPOCHS`: expected a whole number, 0 or more, got `-1`
    ");
    insta::assert_snapshot!(complaint("EPOCHS: 1", "EPOCHS:"), @r"
    error: `params.yaml` line 5: `EPOCHS`: expected a whole number, 0 or more, got nothing
    ");
    insta::assert_snapshot!(complaint("AUGMENTATION: True", "AUGMENTATION: yes"), @r"
    error: `params.yaml` line 1: `AUGMENTATION`: expected `True` or `False`, got `yes`
    ");
    insta::assert_snapshot!(complaint("[224, 224, 3]", "224"), @r"
    error: `params.yaml` line 2: `IMAGE_SIZE`: expected a list such as `[a, b]`, got `224`
    ");
    insta::assert_snapshot!(complaint("[224, 224, 3]", "[224, 224]"), @r"
    error: `params.yaml` line 2: `IMAGE_SIZE`: expected 3 numbers such as `[224, 224, 3]`, got `[224, 224]`
    ");
    insta::assert_snapshot!(complaint("EPOCHS: 1", "EPOCHS: 1\nOPTIMIZER: rmsprop"), @r"
    error: `params.yaml` line 6: `OPTIMIZER`: expected one of `sgd`, `adam`, `lbfgs`, got `rmsprop`
    ");
}

#[test]
fn out_of_range() {
    let texts = [
        complaint("[224, 224, 3]", "[224, 224, 1]"),
        complaint("[224, 224, 3]", "[16, 2048, 3]"),
        complaint("BATCH_SIZE: 16", "BATCH_SIZE: 0"),
        complaint("EPOCHS: 1", "EPOCHS: 0"),
        complaint("0.01", "0"),
        complaint("0.01", ".nan"),
        complaint("0.01", ".inf"),
        complaint("INCLUDE_TOP: False", "INCLUDE_TOP: True"),
        complaint("CLASSES: 2", "CLASSES: 1"),
        complaint("CLASSES: 2", "CLASSES: 2\nCLASS_NAMES: [Normal, Cyst, Tumor]"),
        complaint("CLASSES: 2", "CLASSES: 2\nCLASS_NAMES: [Normal, Normal]"),
        complaint("CLASSES: 2", "CLASSES: 2\nCLASS_NAMES: [Normal, ../Tumor]"),
        complaint("CLASSES: 2", "CLASSES: 2\nVALIDATION_SPLIT: 0"),
        complaint("CLASSES: 2", "CLASSES: 2\nTEST_SPLIT: 1.5"),
        complaint("CLASSES: 2", "CLASSES: 2\nVALIDATION_SPLIT: 0.6\nTEST_SPLIT: 0.4"),
        complaint("CLASSES: 2", "CLASSES: 2\nLABEL_SMOOTHING: 1"),
        complaint("CLASSES: 2", "CLASSES: 2\nMOMENTUM: .nan"),
        complaint("CLASSES: 2", "CLASSES: 2\nZOOM_RANGE: 1"),
        complaint("CLASSES: 2", "CLASSES: 2\nROTATION_RANGE: 181"),
        complaint("CLASSES: 2", "CLASSES: 2\nAUGMENTATION_VIEWS: 0"),
        complaint("CLASSES: 2", "CLASSES: 2\nFREEZE_TILL: 4"),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn not_yaml() {
    let tab = CONFIG_TEMPLATE.replace("  root_dir: artifacts/training", "\troot_dir: artifacts/training");
    insta::assert_snapshot!(printed(&Config::parse(Path::new("config/config.yaml"), &tab).unwrap_err()));
    insta::assert_snapshot!(complaint("IMAGE_SIZE: [224, 224, 3]", "IMAGE_SIZE: [224, 224, 3"));
    insta::assert_snapshot!(printed(&params("").unwrap_err()), @r"
    error: `params.yaml` line 1, column 1: expected keys with values, got an empty file
    hint: the file is YAML 1.2: `KEY: value`, one a line
    ");
    insta::assert_snapshot!(printed(&params("just a text").unwrap_err()), @r"
    error: `params.yaml` line 1, column 1: expected mapping start
      |
    1 | just a text
      | ^ expected mapping start
    hint: the file is YAML 1.2: `KEY: value`, one a line
    ");
}

#[test]
fn config_keys_and_digests() {
    let config = |from: &str, to: &str| {
        assert!(CONFIG_TEMPLATE.contains(from));
        printed(
            &Config::parse(Path::new("config/config.yaml"), &CONFIG_TEMPLATE.replacen(from, to, 1))
                .unwrap_err(),
        )
    };
    insta::assert_snapshot!(config("source_URL", "source_url"));
    insta::assert_snapshot!(config("# sha256: …", "sha256: 12ab"), @r"
    error: `config/config.yaml` line 17: `sha256`: expected 64 hexadecimal digits, got `12ab`
    ");
    let unknown = config("keep_images: False", "keep_image: False");
    assert!(unknown.contains("keep_image") && unknown.contains("master_key_file"), "{unknown}");
    let days = config("# retention_days: 3650", "retention_days: 0");
    assert!(days.contains("`retention_days`: expected 1 or more, got 0"), "{days}");
    let name = config("registered_model_name: VGG16Model", "registered_model_name: kidney/ct");
    assert!(name.contains("expected a name without `/`, `:` and `@`, got `kidney/ct`"), "{name}");
}

#[test]
fn the_reference_has_no_sections_for_mlflow_and_receipts() {
    let (reference, _) = CONFIG_TEMPLATE.split_once("mlflow:\n").unwrap();
    let config = |text| Config::parse(Path::new("config.yaml"), text).unwrap();
    assert_eq!(config(reference), config(CONFIG_TEMPLATE));
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    insta::assert_snapshot!(printed(&Params::load(Path::new("no/params.yaml")).unwrap_err()), @r"
    error: `no/params.yaml` does not exist
    hint: `nephros init` writes one, or name another with `--config` or `--params`
    ");
}

#[test]
fn templates_load_and_begin_with_the_reference() {
    let template = params(PARAMS_TEMPLATE).unwrap();
    assert_eq!(template, params(REFERENCE_PARAMS).unwrap());
    let lines: Vec<&str> =
        PARAMS_TEMPLATE.lines().filter(|line| line.contains(": ") && !line.starts_with('#')).collect();
    assert_eq!(lines[..8].join("\n"), REFERENCE_PARAMS.trim_end());
    let config = Config::parse(Path::new("config.yaml"), CONFIG_TEMPLATE).unwrap();
    assert_eq!(config.data_ingestion.local_data_file, Path::new("artifacts/data_ingestion/data.zip"));
    let demo = params(PARAMS_DEMO_TEMPLATE).unwrap();
    assert_eq!((demo.weights, demo.image_size), (WeightsSource::None, [128, 128, 3]));
}

#[test]
fn a_network_without_weights_is_compact_unless_it_is_named() {
    let none = REFERENCE_PARAMS.replace("WEIGHTS: imagenet", "WEIGHTS: none");
    assert_eq!(params(&none).unwrap().architecture, Architecture::Compact);
    let named = format!("{none}\nARCHITECTURE: vgg16\n");
    assert_eq!(params(&named).unwrap().architecture, Architecture::Vgg16);
    assert_eq!(params(REFERENCE_PARAMS).unwrap().architecture, Architecture::Vgg16);
    let hypercolumn =
        params(&format!("{none}\nARCHITECTURE: vgg16-hypercolumn\nOPTIMIZER: lbfgs\n")).unwrap();
    assert_eq!(hypercolumn.architecture, Architecture::Vgg16Hypercolumn);
    let unknown = params(&format!("{none}\nARCHITECTURE: hypercolumn\n")).unwrap_err().to_string();
    assert!(unknown.contains("`vgg16`, `vgg16-hypercolumn`, `compact`"), "{unknown}");
}

#[test]
fn lbfgs_is_for_the_head_alone() {
    let with = |keys: &str| params(&format!("{REFERENCE_PARAMS}\nOPTIMIZER: lbfgs\n{keys}"));
    assert!(with("").is_ok());
    for keys in ["FREEZE_ALL: False", "HIDDEN_UNITS: 8", "ARCHITECTURE: compact"] {
        let error = with(keys).unwrap_err().to_string();
        assert!(error.contains("`OPTIMIZER`") && error.contains("got `lbfgs`"), "{error}");
    }
}

#[test]
fn a_head_on_means_is_fitted_by_lbfgs_alone() {
    for pooling in ["avg", "halves", "mil", "asymmetry"] {
        let with = |keys: &str| params(&format!("{REFERENCE_PARAMS}\nPOOLING: {pooling}\n{keys}"));
        assert!(with("OPTIMIZER: lbfgs").is_ok());
        for keys in ["", "OPTIMIZER: adam", "ARCHITECTURE: compact"] {
            let error = with(keys).unwrap_err().to_string();
            assert!(error.contains("`POOLING`") && error.contains(&format!("got `{pooling}`")), "{error}");
        }
    }
}

#[test]
fn the_sicker_half_is_told_of_two_classes() {
    for pooling in ["mil", "asymmetry"] {
        let classes = |classes: &str| {
            let keys = REFERENCE_PARAMS.replace("CLASSES: 2", classes);
            assert!(keys.contains(classes));
            params(&format!("{keys}\nOPTIMIZER: lbfgs\nPOOLING: {pooling}"))
        };
        assert_eq!(classes("CLASSES: 2").unwrap().head_units(), 3);
        let error = classes("CLASSES: 4").unwrap_err().to_string();
        assert!(error.contains("`POOLING`") && error.contains("other than two classes"), "{error}");
    }
}

#[test]
fn every_field_stands_in_the_templates_under_a_comment() {
    let mut all = params(REFERENCE_PARAMS).unwrap();
    all.class_names = Some(vec!["Normal".into(), "Tumor".into()]);
    all.normalization = Some(nephros_core::preprocessing::Normalization::Caffe);
    all.freeze_till = Some(1);
    let fields = serde_json::to_value(&all).unwrap();
    let mut config = Config::parse(Path::new("config.yaml"), CONFIG_TEMPLATE).unwrap();
    config.data_ingestion.sha256 = Some(String::new());
    config.data_ingestion.md5 = Some(String::new());
    config.data_ingestion.patients_file = Some("x".into());
    let ingestion = serde_json::to_value(&config.data_ingestion).unwrap();
    for (template, fields) in
        [(PARAMS_TEMPLATE, &fields), (PARAMS_DEMO_TEMPLATE, &fields), (CONFIG_TEMPLATE, &ingestion)]
    {
        let lines: Vec<&str> = template.lines().map(str::trim).collect();
        for key in fields.as_object().unwrap().keys() {
            let is_key = |line: &&str| line.trim_start_matches("# ").starts_with(&format!("{key}:"));
            let at = lines.iter().position(is_key).unwrap_or_else(|| panic!("{key} is not there"));
            assert!(lines[at - 1].starts_with("# "), "{key} is not explained");
        }
    }
}
