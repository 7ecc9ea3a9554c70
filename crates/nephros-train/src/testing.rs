//! Values that several test modules start from.

use serde_json::json;

use crate::config::Params;

/// The reference's parameters with our defaults beside them.
pub(crate) fn params() -> Params {
    let reference = json!({
        "AUGMENTATION": true, "IMAGE_SIZE": [224, 224, 3], "BATCH_SIZE": 16, "INCLUDE_TOP": false,
        "EPOCHS": 1, "CLASSES": 2, "WEIGHTS": "none", "LEARNING_RATE": 0.01,
    });
    serde_json::from_value(reference).unwrap()
}
