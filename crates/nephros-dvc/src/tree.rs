//! The list of a folder's files, whose MD5 is the folder's.

use crate::{
    digest::{Md5Sum, Oid},
    json,
};

/// A file below a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Path below the folder, with `/`.
    pub path: String,
    /// Its MD5.
    pub sum: Md5Sum,
}

/// All files below a folder, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    files: Vec<TreeFile>,
}

impl Tree {
    /// Sorts the files by path; UTF-8 sorts as code points do.
    pub fn new(mut files: Vec<TreeFile>) -> Self {
        files.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        Self { files }
    }

    /// The files.
    pub fn files(&self) -> &[TreeFile] {
        &self.files
    }

    /// The object's bytes: what Python's `json.dumps` makes of the list.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.files.len() * 96 + 2);
        bytes.push(b'[');
        for (number, file) in self.files.iter().enumerate() {
            if number > 0 {
                bytes.extend(b", ");
            }
            bytes.extend(format!("{{\"md5\": \"{}\", \"relpath\": ", file.sum).bytes());
            json::write_text(&mut bytes, &file.path);
            bytes.push(b'}');
        }
        bytes.push(b']');
        bytes
    }

    /// The object's name.
    pub fn oid(&self) -> Oid {
        Oid { sum: Md5Sum::of(&self.to_bytes()), is_dir: true }
    }

    /// Reads an object; `None` if it is not the list of a folder, or names files outside of it.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let serde_json::Value::Array(items) = serde_json::from_slice(bytes).ok()? else { return None };
        let file = |item: serde_json::Value| {
            let path = item.get("relpath")?.as_str()?.to_owned();
            let inside = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
            let sum = item.get("md5")?.as_str()?.parse().ok()?;
            inside.then_some(TreeFile { path, sum })
        };
        Some(Self::new(items.into_iter().map(file).collect::<Option<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_as_python_writes_it() {
        let file = |path: &str, text: &[u8]| TreeFile { path: path.into(), sum: Md5Sum::of(text) };
        let tree = Tree::new(vec![file("é漢😀.txt", b"x"), file("a/x", b""), file("a-b", b"")]);
        let text = String::from_utf8(tree.to_bytes()).unwrap();
        assert_eq!(
            text,
            "[{\"md5\": \"d41d8cd98f00b204e9800998ecf8427e\", \"relpath\": \"a-b\"}, \
             {\"md5\": \"d41d8cd98f00b204e9800998ecf8427e\", \"relpath\": \"a/x\"}, \
             {\"md5\": \"9dd4e461268c8034f5c8564e155c67a6\", \"relpath\": \"\\u00e9\\u6f22\\ud83d\\ude00.txt\"}]"
        );
        assert_eq!(Tree::from_bytes(text.as_bytes()), Some(tree));
        assert_eq!(
            Tree::from_bytes(b"[{\"md5\": \"9dd4e461268c8034f5c8564e155c67a6\", \"relpath\": \"../x\"}]"),
            None
        );
    }
}
