//! Where the class folders lie below some folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use nephros_core::hint::Hint;
use walkdir::{DirEntry, WalkDir};

use crate::phantom;

const IMAGE_EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp"];

/// The class folders of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Folder that holds the class folders.
    pub root: PathBuf,
    /// Names in label order.
    pub classes: Vec<String>,
    /// Files in class folders, each with its class index and path below `root`, sorted.
    pub files: Vec<ClassFile>,
    /// Folders with images that are not used, relative to the dataset, with their image counts.
    pub unused: BTreeMap<String, usize>,
}

/// A file in a class folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassFile {
    /// Path below the root, `Class/…`, with `/`.
    pub path: String,
    /// Index into the classes.
    pub class: usize,
}

/// Why there are no class folders to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// No image anywhere.
    #[error("`{dataset}` holds no images: expected class folders with images, got {files} other files")]
    NoImages {
        /// The source.
        dataset: String,
        /// Files of other kinds.
        files: usize,
    },
    /// Several sets of class folders, or class folders at several levels.
    #[error("`{dataset}` has class folders in {} places, expected one: {}", places.len(), places.join("; "))]
    Ambiguous {
        /// The source.
        dataset: String,
        /// Each place with its folders.
        places: Vec<String>,
    },
    /// Fewer than two class folders.
    #[error("`{dataset}`: expected at least 2 class folders, got {found}")]
    OneClass {
        /// The source.
        dataset: String,
        /// What was found.
        found: String,
    },
    /// A folder of `CLASS_NAMES` is not there.
    #[error("`{dataset}`: expected class folder `{class}`, got {found}")]
    MissingClass {
        /// The source.
        dataset: String,
        /// The name.
        class: String,
        /// What was found.
        found: String,
    },
    /// `CLASSES` says another number.
    #[error("`CLASSES`: expected {expected} class folders in `{dataset}`, got {found}")]
    WrongNumber {
        /// The source.
        dataset: String,
        /// `CLASSES`.
        expected: usize,
        /// What was found.
        found: String,
        /// Number of class folders.
        got: usize,
    },
    /// A folder cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Hint for LayoutError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoImages { .. } => {
                "put JPEG, PNG, BMP, TIFF or WebP files into one folder for each class, such as `Normal` and `Tumor`"
                    .into()
            }
            Self::Ambiguous { .. } => {
                "name the folders to use in `CLASS_NAMES`, or set `source_URL` to the folder that holds them".into()
            }
            Self::OneClass { .. } => "a classifier needs images of two classes, in one folder each".into(),
            Self::MissingClass { .. } => "`CLASS_NAMES` must be names of folders, letter by letter".into(),
            Self::WrongNumber { got, .. } => {
                format!("set `CLASSES: {got}`, or name the folders to use in `CLASS_NAMES`")
            }
            Self::Io(_) => return None,
        })
    }
}

/// Finds the class folders below `base`; `dataset` is the name for messages.
///
/// # Errors
/// See [`LayoutError`].
pub fn find(
    base: &Path,
    dataset: &str,
    names: Option<&[String]>,
    classes: usize,
) -> Result<Layout, LayoutError> {
    let tree = Tree::read(base)?;
    if tree.images.is_empty() {
        return Err(LayoutError::NoImages { dataset: dataset.into(), files: tree.files.len() });
    }
    let root = match names {
        Some(names) => tree.root_of(names, dataset)?,
        None => tree.root(dataset)?,
    };
    let found: Vec<String> = tree.children_with_images(&root).into_iter().collect();
    let classes = match names {
        Some(names) => names.to_vec(),
        None if found.len() < 2 => {
            return Err(LayoutError::OneClass { dataset: dataset.into(), found: tree.describe(&root) });
        }
        None if found.len() != classes => {
            return Err(LayoutError::WrongNumber {
                dataset: dataset.into(),
                expected: classes,
                found: tree.describe(&root),
                got: found.len(),
            });
        }
        None => found,
    };
    Ok(tree.layout(base, &root, classes))
}

/// Files by their path below the base, and images counted by the folder they lie in.
struct Tree {
    folders: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    images: BTreeMap<PathBuf, usize>,
}

impl Tree {
    fn read(base: &Path) -> io::Result<Self> {
        let mut tree = Self {
            folders: BTreeSet::from([PathBuf::new()]),
            files: BTreeSet::new(),
            images: BTreeMap::new(),
        };
        let walk = WalkDir::new(base).follow_links(true).min_depth(1).sort_by_file_name();
        for entry in walk.into_iter().filter_entry(|entry| !is_hidden(entry) && !is_drawn_masks(entry)) {
            let entry = entry?;
            let Ok(path) = entry.path().strip_prefix(base) else { continue };
            if entry.file_type().is_dir() {
                tree.folders.insert(path.to_owned());
                continue;
            }
            if is_image_name(path) {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                *tree.images.entry(folder).or_default() += 1;
            }
            tree.files.insert(path.to_owned());
        }
        Ok(tree)
    }

    /// The folder whose children hold the images.
    fn root(&self, dataset: &str) -> Result<PathBuf, LayoutError> {
        let mut groups: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
        for folder in self.outermost() {
            if let Some(parent) = folder.parent() {
                groups.entry(parent).or_default().push(folder);
            }
        }
        let parents: Vec<&Path> = groups.keys().copied().collect();
        match parents.as_slice() {
            [] => Ok(PathBuf::new()),
            [parent] => Ok(parent.to_path_buf()),
            _ => common_root(&groups).ok_or_else(|| LayoutError::Ambiguous {
                dataset: dataset.into(),
                places: parents.iter().map(|parent| self.describe(parent)).collect(),
            }),
        }
    }

    /// Folders with images that lie in no other such folder. Images beside class folders, such as
    /// a preview, do not make their folder one: the deeper level wins.
    fn outermost(&self) -> Vec<&Path> {
        let holds_more = |folder: &Path| {
            let below: usize = self
                .images
                .iter()
                .filter(|(other, _)| *other != folder && other.starts_with(folder))
                .map(|(_, n)| n)
                .sum();
            below > self.images[folder]
        };
        let folders: Vec<&Path> =
            self.images.keys().map(PathBuf::as_path).filter(|folder| !holds_more(folder)).collect();
        let inside =
            |folder: &Path| folders.iter().any(|other| *other != folder && folder.starts_with(other));
        folders.iter().copied().filter(|folder| !inside(folder)).collect()
    }

    /// The one folder that has all of `names` as children.
    fn root_of(&self, names: &[String], dataset: &str) -> Result<PathBuf, LayoutError> {
        let has_all = |root: &&PathBuf| names.iter().all(|name| self.folders.contains(&root.join(name)));
        let roots: Vec<&PathBuf> = self.folders.iter().filter(has_all).collect();
        match roots.as_slice() {
            [root] => Ok((*root).clone()),
            [] => {
                let place = self.root(dataset)?;
                let missing = names.iter().find(|name| !self.folders.contains(&place.join(name)));
                Err(LayoutError::MissingClass {
                    dataset: dataset.into(),
                    class: missing.or(names.first()).cloned().unwrap_or_default(),
                    found: self.describe(&place),
                })
            }
            _ => Err(LayoutError::Ambiguous {
                dataset: dataset.into(),
                places: roots.iter().map(|root| self.describe(root)).collect(),
            }),
        }
    }

    fn children_with_images(&self, root: &Path) -> BTreeSet<String> {
        self.images.keys().filter_map(|folder| child_of(root, folder)).collect()
    }

    /// `in data: Normal (240 files, 240 images), Tumor (…)`.
    fn describe(&self, root: &Path) -> String {
        let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for child in self.folders.iter().filter_map(|folder| child_of(root, folder)) {
            counts.entry(child).or_default();
        }
        for file in &self.files {
            if let Some(child) = file.parent().and_then(|folder| child_of(root, folder)) {
                let count = counts.entry(child).or_default();
                count.0 += 1;
                count.1 += usize::from(is_image_name(file));
            }
        }
        let folders: Vec<String> = counts
            .iter()
            .map(|(name, (files, images))| format!("`{name}` ({files} files, {images} images)"))
            .collect();
        let place =
            if root.as_os_str().is_empty() { String::new() } else { format!("in `{}`: ", root.display()) };
        if folders.is_empty() {
            format!("{place}no folders")
        } else {
            format!("{place}{}", folders.join(", "))
        }
    }

    fn layout(&self, base: &Path, root: &Path, classes: Vec<String>) -> Layout {
        let mut files = Vec::new();
        for file in &self.files {
            let Ok(path) = file.strip_prefix(root) else { continue };
            let child = path.parent().and_then(|folder| child_of(Path::new(""), folder));
            if let Some(class) = child.and_then(|child| classes.iter().position(|name| *name == child)) {
                files.push(ClassFile { path: slashes(path), class });
            }
        }
        files.sort();
        let used = |folder: &Path| {
            folder
                .strip_prefix(root)
                .ok()
                .and_then(|path| child_of(Path::new(""), path))
                .is_some_and(|child| classes.contains(&child))
        };
        let unused = self
            .images
            .iter()
            .filter(|(folder, _)| !used(folder))
            .map(|(folder, count)| (slashes(folder), *count))
            .collect();
        Layout { root: base.join(root), classes, files, unused }
    }
}

/// The first component of `folder` below `root`.
fn child_of(root: &Path, folder: &Path) -> Option<String> {
    let first = folder.strip_prefix(root).ok()?.components().next()?;
    Some(first.as_os_str().to_string_lossy().into_owned())
}

/// Dot files, and what macOS and Windows leave beside images.
pub(crate) fn is_hidden(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    name.starts_with('.') || ["__MACOSX", "Thumbs.db", "desktop.ini"].contains(&name.as_ref())
}

/// The lesion masks beside the class folders of a drawn cohort.
fn is_drawn_masks(entry: &DirEntry) -> bool {
    let drawn = |folder: &Path| folder.join(phantom::MARKER).is_file();
    entry.file_name() == phantom::MASKS && entry.path().parent().is_some_and(drawn)
}

pub(crate) fn is_image_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        IMAGE_EXTENSIONS.contains(&extension.to_string_lossy().to_lowercase().as_str())
    })
}

/// A relative path with `/` on every system.
pub(crate) fn slashes(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// `Class/Patient/image`: the class folders' parent, if patients are in one class each. The
/// same names below each parent mean `train/Class` and `test/Class` instead.
fn common_root(groups: &BTreeMap<&Path, Vec<&Path>>) -> Option<PathBuf> {
    let mut grandparents = groups.keys().map(|parent| parent.parent());
    let first = grandparents.next()??;
    let names: Vec<_> = groups.values().flatten().filter_map(|folder| folder.file_name()).collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    (grandparents.all(|other| other == Some(first)) && distinct.len() == names.len())
        .then(|| first.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, b"x").unwrap();
        }
        folder
    }

    fn root_and_files(files: &[&str], names: Option<&[String]>) -> Result<(String, Vec<String>), String> {
        let folder = dataset(files);
        let layout = find(folder.path(), "set", names, names.map_or(2, <[_]>::len))
            .map_err(|error| error.to_string())?;
        let root = slashes(layout.root.strip_prefix(folder.path()).unwrap());
        Ok((root, layout.files.into_iter().map(|file| file.path).collect()))
    }

    #[test]
    fn class_folders_are_found_at_any_depth() {
        let found = root_and_files(&["a/b/Normal/1.jpg", "a/b/Tumor/2.PNG", "a/readme.txt"], None).unwrap();
        assert_eq!(found, ("a/b".into(), vec!["Normal/1.jpg".into(), "Tumor/2.PNG".into()]));
    }

    #[test]
    fn hidden_and_macos_files_are_no_images() {
        let files =
            ["Normal/1.jpg", "Normal/._1.jpg", "Tumor/2.jpg", "__MACOSX/Normal/._1.jpg", ".git/x.png"];
        let found = root_and_files(&files, None).unwrap();
        assert_eq!(found, (String::new(), vec!["Normal/1.jpg".into(), "Tumor/2.jpg".into()]));
    }

    #[test]
    fn patient_folders_within_classes_are_not_classes() {
        let files = ["d/Normal/p1/1.jpg", "d/Normal/p2/1.jpg", "d/Tumor/p3/1.jpg"];
        let found = root_and_files(&files, None).unwrap();
        assert_eq!(found.0, "d");
        assert_eq!(found.1, ["Normal/p1/1.jpg", "Normal/p2/1.jpg", "Tumor/p3/1.jpg"]);
    }

    #[test]
    fn a_preview_beside_the_class_folders_is_not_a_class() {
        let files = ["d/preview.png", "d/Normal/1.jpg", "d/Normal/2.jpg", "d/Tumor/1.jpg"];
        assert_eq!(root_and_files(&files, None).unwrap().0, "d");
    }

    #[test]
    fn the_masks_of_a_drawn_cohort_are_no_classes() {
        let images = ["d/Normal/1.png", "d/Tumor/1.png"];
        let masks = ["d/masks/Normal/1.png", "d/masks/Tumor/1.png"];
        let drawn = [&images[..], &masks, &["d/phantom.json"]].concat();
        let (root, files) = root_and_files(&drawn, None).unwrap();
        assert_eq!((root.as_str(), files.len()), ("d", 2));
        // A class of that name in somebody's own data is none of ours to leave out.
        let own = ["d/masks/1.png", "d/Tumor/1.png"];
        assert_eq!(root_and_files(&own, None).unwrap().1.len(), 2);
    }

    #[test]
    fn train_and_test_folders_are_ambiguous() {
        let files = ["train/Normal/1.jpg", "train/Tumor/2.jpg", "test/Normal/3.jpg", "test/Tumor/4.jpg"];
        insta::assert_snapshot!(root_and_files(&files, None).unwrap_err(), @"`set` has class folders in 2 places, expected one: in `test`: `Normal` (1 files, 1 images), `Tumor` (1 files, 1 images); in `train`: `Normal` (1 files, 1 images), `Tumor` (1 files, 1 images)");
    }

    #[test]
    fn class_names_choose_folders_and_their_order() {
        let files = ["x/Cyst/1.jpg", "x/Normal/1.jpg", "x/Tumor/1.jpg"];
        let names = ["Tumor".to_owned(), "Normal".to_owned()];
        let folder = dataset(&files);
        let layout = find(folder.path(), "set", Some(&names), 2).unwrap();
        assert_eq!(layout.classes, names);
        assert_eq!(layout.files[1], ClassFile { path: "Tumor/1.jpg".into(), class: 0 });
        assert_eq!(layout.unused, BTreeMap::from([("x/Cyst".to_owned(), 1)]));
    }

    #[test]
    fn a_missing_class_lists_what_is_there() {
        let names = ["Normal".to_owned(), "Tumour".to_owned()];
        let error = root_and_files(&["x/Normal/1.jpg", "x/Tumor/1.jpg"], Some(&names)).unwrap_err();
        insta::assert_snapshot!(error, @"`set`: expected class folder `Tumour`, got in `x`: `Normal` (1 files, 1 images), `Tumor` (1 files, 1 images)");
    }

    #[test]
    fn one_class_or_another_number_is_refused() {
        insta::assert_snapshot!(root_and_files(&["Normal/1.jpg"], None).unwrap_err(), @"`set`: expected at least 2 class folders, got `Normal` (1 files, 1 images)");
        insta::assert_snapshot!(root_and_files(&["A/1.jpg", "B/1.jpg", "C/1.jpg"], None).unwrap_err(), @"`CLASSES`: expected 2 class folders in `set`, got `A` (1 files, 1 images), `B` (1 files, 1 images), `C` (1 files, 1 images)");
        insta::assert_snapshot!(root_and_files(&["a.txt"], None).unwrap_err(), @"`set` holds no images: expected class folders with images, got 1 other files");
        insta::assert_snapshot!(root_and_files(&["a.jpg", "b.jpg"], None).unwrap_err(), @"`set`: expected at least 2 class folders, got no folders");
    }
}
