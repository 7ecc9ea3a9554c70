//! Where each overlay goes.

use std::{
    collections::HashSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use nephros_core::explain::Method;

/// Names overlays, no two alike.
#[derive(Debug)]
pub struct Overlays<'a> {
    folder: &'a Path,
    method: Method,
    taken: HashSet<PathBuf>,
}

impl<'a> Overlays<'a> {
    /// Overlays of one method in a folder.
    pub fn new(folder: &'a Path, method: Method) -> Self {
        Self { folder, method, taken: HashSet::new() }
    }

    /// `<stem>.<method>.png`, in the folders that the image has below `root`; with the image's whole
    /// name, or a number, where another image has that name already.
    pub fn name(&mut self, root: &Path, image: &Path) -> PathBuf {
        let below = image.strip_prefix(root).ok().and_then(Path::parent).unwrap_or(Path::new(""));
        let ending = |name: &std::ffi::OsStr, number: Option<u32>| {
            let mut name = OsString::from(name);
            if let Some(number) = number {
                name.push(format!("-{number}"));
            }
            name.push(format!(".{}.png", self.method.name()));
            self.folder.join(below).join(name)
        };
        let (stem, whole) = (image.file_stem().unwrap_or_default(), image.file_name().unwrap_or_default());
        let first = [ending(stem, None), ending(whole, None)];
        let numbered = (2..).map(|number| ending(whole, Some(number)));
        let free = first.into_iter().chain(numbered).find(|path| !self.taken.contains(path));
        let path = free.unwrap_or_default();
        self.taken.insert(path.clone());
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_kept_and_no_name_is_given_twice() {
        let mut overlays = Overlays::new(Path::new("out"), Method::GradCam);
        let mut name = |root: &str, image: &str| {
            overlays.name(Path::new(root), Path::new(image)).to_string_lossy().replace('\\', "/")
        };
        assert_eq!(name("scans", "scans/deep/a.jpg"), "out/deep/a.gradcam.png");
        assert_eq!(name("x/a.jpg", "x/a.jpg"), "out/a.gradcam.png");
        assert_eq!(name("x/a.png", "x/a.png"), "out/a.png.gradcam.png");
        assert_eq!(name("y/a.png", "y/a.png"), "out/a.png-2.gradcam.png");
    }
}
