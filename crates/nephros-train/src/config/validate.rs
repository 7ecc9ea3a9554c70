//! Rules that types cannot hold.

use std::collections::HashSet;

use super::{Config, InvalidValue, Optimizer, Params, Pooling};

type Check = Result<(), InvalidValue>;

impl Params {
    /// Checks every range; the first violation is returned.
    ///
    /// # Errors
    /// [`InvalidValue`] with key, expected and got.
    pub fn validate(&self) -> Check {
        self.validate_network()?;
        self.validate_phantoms()?;
        self.validate_classes()?;
        self.validate_optimization()?;
        self.validate_split()?;
        self.validate_augmentation()
    }

    fn validate_network(&self) -> Check {
        let [height, width, channels] = self.image_size;
        let sides = 32..=1024;
        if channels != 3 || !sides.contains(&height) || !sides.contains(&width) {
            let expected = "height and width of 32 to 1024 and 3 channels, such as `[224, 224, 3]`";
            return Err(InvalidValue::new("IMAGE_SIZE", expected, format!("`{:?}`", self.image_size)));
        }
        if self.include_top {
            let advice = "the 1000-class ImageNet head cannot name kidneys; set `INCLUDE_TOP: False`";
            return Err(InvalidValue::new("INCLUDE_TOP", "`False`", "`True`").advise(advice));
        }
        if self.hidden_units > 65_536 {
            return Err(InvalidValue::new("HIDDEN_UNITS", "0 to 65536", self.hidden_units));
        }
        match self.freeze_till {
            Some(0) => Err(InvalidValue::new("FREEZE_TILL", "a number of layers, 1 or more", 0)),
            Some(layers) if self.freeze_all => {
                let advice = "set `FREEZE_ALL: False` to train the last layers, or remove `FREEZE_TILL`";
                Err(InvalidValue::new("FREEZE_TILL", "no value while `FREEZE_ALL` is True", layers)
                    .advise(advice))
            }
            _ => Ok(()),
        }
    }

    fn validate_phantoms(&self) -> Check {
        if self.phantom_patients > 0 && self.architecture.is_published() && self.freeze_all {
            let advice =
                "drawn patients teach convolutions; set `FREEZE_ALL: False`, or `ARCHITECTURE: compact`";
            let expected = "0 while `FREEZE_ALL` is True";
            return Err(InvalidValue::new("PHANTOM_PATIENTS", expected, self.phantom_patients).advise(advice));
        }
        below("PHANTOM_SHARE", self.phantom_share, 1.0)
    }

    fn validate_classes(&self) -> Check {
        if self.classes < 2 {
            return Err(InvalidValue::new("CLASSES", "2 or more", self.classes));
        }
        let Some(names) = &self.class_names else { return Ok(()) };
        if names.len() != self.classes {
            let expected = format!("{} names, as `CLASSES` says", self.classes);
            let got = format!("{}: `{}`", names.len(), names.join("`, `"));
            return Err(InvalidValue::new("CLASS_NAMES", expected, got));
        }
        let mut seen = HashSet::new();
        for name in names {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
                return Err(InvalidValue::new("CLASS_NAMES", "names of folders", format!("`{name}`")));
            }
            if !seen.insert(name) {
                return Err(InvalidValue::new("CLASS_NAMES", "different names", format!("`{name}` twice")));
            }
        }
        Ok(())
    }

    fn validate_optimization(&self) -> Check {
        at_least_one("BATCH_SIZE", self.batch_size)?;
        at_least_one("EPOCHS", self.epochs)?;
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(InvalidValue::new("LEARNING_RATE", "a number above 0", self.learning_rate));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(InvalidValue::new("WEIGHT_DECAY", "a number, 0 or more", self.weight_decay));
        }
        self.validate_lbfgs()?;
        self.validate_pooling()?;
        self.validate_places()?;
        below("MOMENTUM", self.momentum, 1.0)?;
        below("LABEL_SMOOTHING", self.label_smoothing, 1.0)
    }

    /// L-BFGS needs a loss that is the same at every step.
    fn validate_lbfgs(&self) -> Check {
        let frozen = self.architecture.is_published() && self.freeze_all;
        if self.optimizer != Optimizer::Lbfgs || (frozen && self.hidden_units == 0) {
            return Ok(());
        }
        let expected = "`sgd` or `adam` unless the head alone is trained, without a hidden layer";
        let advice = "set `ARCHITECTURE: vgg16`, `FREEZE_ALL: True` and `HIDDEN_UNITS: 0` for `lbfgs`";
        Err(InvalidValue::new("OPTIMIZER", expected, "`lbfgs`").advise(advice))
    }

    /// Weights that are the same at every place are fitted by L-BFGS alone.
    fn validate_pooling(&self) -> Check {
        let got = match self.pooling {
            Pooling::None => return Ok(()),
            Pooling::Avg => "`avg`",
            Pooling::Halves => "`halves`",
            Pooling::Mil => "`mil`",
            Pooling::Asymmetry => "`asymmetry`",
        };
        if self.pooling.asks_the_higher_half() && self.classes != 2 {
            let expected = "`none`, `avg` or `halves` for other than two classes";
            return Err(InvalidValue::new("POOLING", expected, got));
        }
        if self.optimizer == Optimizer::Lbfgs {
            return Ok(());
        }
        let advice = "set `OPTIMIZER: lbfgs`, or `ARCHITECTURE: compact`, which always averages";
        Err(InvalidValue::new("POOLING", "`none` unless `OPTIMIZER` is `lbfgs`", got).advise(advice))
    }

    /// The head of a network that judges places is what it is.
    fn validate_places(&self) -> Check {
        if self.architecture.judges_places() && self.hidden_units > 0 {
            let expected = "0 for `compact-places`, whose head judges places";
            return Err(InvalidValue::new("HIDDEN_UNITS", expected, self.hidden_units));
        }
        Ok(())
    }

    fn validate_split(&self) -> Check {
        let shares = [
            ("VALIDATION_SPLIT", self.validation_split),
            ("TEST_SPLIT", self.test_split),
            ("CONFORMAL_ERROR_RATE", self.conformal_error_rate),
        ];
        for (key, share) in shares {
            if !(share > 0.0 && share < 1.0) {
                return Err(InvalidValue::new(key, "a share above 0 and below 1", share));
            }
        }
        let sum = self.validation_split + self.test_split;
        if sum >= 1.0 {
            let expected =
                format!("less than {:.3}, so that training images remain", 1.0 - self.validation_split);
            return Err(InvalidValue::new("TEST_SPLIT", expected, self.test_split));
        }
        Ok(())
    }

    fn validate_augmentation(&self) -> Check {
        at_least_one("AUGMENTATION_VIEWS", self.augmentation_views)?;
        if !(0.0..=180.0).contains(&self.rotation_range) {
            return Err(InvalidValue::new("ROTATION_RANGE", "0 to 180 degrees", self.rotation_range));
        }
        below("WIDTH_SHIFT_RANGE", self.width_shift_range, 1.0)?;
        below("HEIGHT_SHIFT_RANGE", self.height_shift_range, 1.0)?;
        below("SHEAR_RANGE", self.shear_range, 90.0)?;
        below("ZOOM_RANGE", self.zoom_range, 1.0)?;
        below("BRIGHTNESS_RANGE", self.brightness_range, 1.0)?;
        below("CONTRAST_RANGE", self.contrast_range, 1.0)?;
        below("GAMMA_RANGE", self.gamma_range, 10.0)?;
        below("NOISE_RANGE", self.noise_range, 1.0)
    }
}

impl Config {
    /// Checks what types cannot hold; the first violation is returned.
    ///
    /// # Errors
    /// [`InvalidValue`] with key, expected and got.
    pub fn validate(&self) -> Check {
        let ingestion = &self.data_ingestion;
        if ingestion.source_url.trim().is_empty() {
            let expected = "a Google Drive link, an http(s) address, a zip or a folder";
            return Err(InvalidValue::new("source_URL", expected, "nothing"));
        }
        hexadecimal("sha256", ingestion.sha256.as_deref(), 64)?;
        hexadecimal("md5", ingestion.md5.as_deref(), 32)?;
        if self.mlflow.experiment_name.trim().is_empty() {
            return Err(InvalidValue::new("experiment_name", "a name", "nothing"));
        }
        let name = &self.mlflow.registered_model_name;
        if name.trim().is_empty() || name.contains(['/', ':', '@']) {
            let expected = "a name without `/`, `:` and `@`";
            return Err(InvalidValue::new("registered_model_name", expected, format!("`{name}`")));
        }
        if self.store.path.as_os_str().is_empty() {
            return Err(InvalidValue::new("path", "a file", "nothing"));
        }
        let days = [
            ("retention_days", self.store.retention_days),
            ("image_retention_days", self.store.image_retention_days),
        ];
        for (key, days) in days {
            days.map_or(Ok(()), |days| at_least_one(key, days as usize))?;
        }
        Ok(())
    }
}

fn at_least_one(key: &str, value: usize) -> Check {
    if value >= 1 { Ok(()) } else { Err(InvalidValue::new(key, "1 or more", value)) }
}

/// From 0 to below `limit`; refuses NaN.
fn below(key: &str, value: f64, limit: f64) -> Check {
    if (0.0..limit).contains(&value) {
        Ok(())
    } else {
        Err(InvalidValue::new(key, format!("0 to below {limit}"), value))
    }
}

fn hexadecimal(key: &str, digits: Option<&str>, length: usize) -> Check {
    match digits {
        Some(digits) if digits.len() != length || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Err(InvalidValue::new(key, format!("{length} hexadecimal digits"), format!("`{digits}`")))
        }
        _ => Ok(()),
    }
}
