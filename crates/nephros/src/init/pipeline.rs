//! `dvc.yaml` of a project, by the parameters that it has.

/// The pipeline of a project whose `params.yaml` has every key.
const TEMPLATE: &str = include_str!("dvc.yaml");

/// The pipeline for a `params.yaml`. DVC refuses a stage whose key is not in the file, where `nephros` takes
/// its default: such a stage then reads the whole file.
pub fn pipeline(params: &str) -> String {
    let has = |key: &str| {
        params
            .lines()
            .any(|line| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':')))
    };
    let mut text = String::new();
    let mut lines = TEMPLATE.lines().peekable();
    while let Some(line) = lines.next() {
        text += line;
        text.push('\n');
        if line.trim() != "params:" {
            continue;
        }
        let mut keys = Vec::new();
        while let Some(item) = lines.next_if(|line| line.trim_start().starts_with("- ")) {
            keys.push(item);
        }
        let key = |item: &&str| item.trim_start().trim_start_matches("- ").trim_end_matches(':').to_owned();
        if keys.iter().map(key).all(|key| key == "params.yaml" || has(&key)) {
            for item in keys {
                text += item;
                text.push('\n');
            }
        } else {
            text += "      - params.yaml:\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use nephros_train::config::{CONFIG_TEMPLATE, PARAMS_DEMO_TEMPLATE, PARAMS_TEMPLATE};

    use super::*;

    #[test]
    fn both_templates_have_every_key_that_a_stage_reads() {
        assert_eq!(pipeline(PARAMS_TEMPLATE), TEMPLATE);
        assert_eq!(pipeline(PARAMS_DEMO_TEMPLATE), TEMPLATE);
    }

    #[test]
    fn a_short_file_is_read_whole() {
        let short = pipeline("CLASSES: 2\nCLASS_NAMES :\nSPLIT_BY: patient\n");
        assert!(short.contains("      - SPLIT_BY\n") && !short.contains("- WEIGHTS"), "{short}");
        assert_eq!(short.matches("- params.yaml:").count(), 3, "{short}");
    }

    /// This repository is a project too.
    #[test]
    fn the_repository_has_the_files_of_a_new_project() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (path, expected) in [
            ("dvc.yaml", TEMPLATE),
            ("params.yaml", PARAMS_TEMPLATE),
            ("config/config.yaml", CONFIG_TEMPLATE),
        ] {
            let text = fs_err::read_to_string(root.join(path)).unwrap();
            assert_eq!(text, expected, "`{path}`: copy it from the template");
        }
    }
}
