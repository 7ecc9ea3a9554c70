//! Where pretrained weights come from: the cache, a server, files of three kinds, or a seed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use md5::{Digest, Md5};
use nephros_core::{
    digest,
    hint::Hint,
    keras::{self, ModelFile, Optimizer},
    network::Architecture,
    preprocessing::Normalization,
    weights::Weights,
};
use nephros_train::{
    config::WeightsSource,
    ingest::download::{Checksum, Downloader},
    pretrained::{self, Pretrained, PretrainedError, Published},
    progress::Silent,
};

const SIZE: [usize; 3] = [64, 64, 3];

fn load(architecture: Architecture, source: &WeightsSource) -> Result<Pretrained, PretrainedError> {
    pretrained::load(architecture, SIZE, source, 9, Path::new("not used"), &Silent)
}

fn random(architecture: Architecture) -> Weights {
    load(architecture, &WeightsSource::None).unwrap().weights
}

fn from_file(architecture: Architecture, path: &Path) -> Result<Pretrained, PretrainedError> {
    load(architecture, &WeightsSource::File(path.display().to_string()))
}

/// A base model of Keras in a folder.
fn keras_file(architecture: Architecture, path: &Path) -> Weights {
    let weights = random(architecture);
    let file = ModelFile {
        architecture,
        image_size: SIZE,
        hidden_units: 0,
        classes: None,
        weights: &weights,
        frozen: true,
        optimizer: Optimizer::Adam,
        learning_rate: 0.01,
    };
    keras::write_model(path, &file).unwrap();
    weights
}

#[test]
fn random_weights_say_their_seed_and_digest() {
    let loaded = load(Architecture::Compact, &WeightsSource::None).unwrap();
    assert_eq!(loaded.source, "random, seed 9");
    assert_eq!(loaded.normalization, Normalization::Unit);
    assert_eq!(loaded.sha256, digest::sha256(&loaded.weights.to_bytes().unwrap()));
}

#[test]
fn images_must_fit_the_network() {
    let error =
        pretrained::load(Architecture::Vgg16, [31, 64, 3], &WeightsSource::None, 1, Path::new(""), &Silent);
    let expected = "`IMAGE_SIZE: [31, 64, 3]` is too small for `ARCHITECTURE: vgg16`, or not RGB";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn nobody_published_compact_weights() {
    let error = load(Architecture::Compact, &WeightsSource::Imagenet).unwrap_err();
    assert_eq!(error.to_string(), "no ImageNet weights are published for `ARCHITECTURE: compact`");
    assert!(error.hint().unwrap().contains("`WEIGHTS: none`"));
}

#[test]
fn keras_files_are_read_with_their_convention() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base_model.h5");
    for (architecture, normalization) in
        [(Architecture::Vgg16, Normalization::Caffe), (Architecture::Compact, Normalization::Unit)]
    {
        let weights = keras_file(architecture, &path);
        let loaded = from_file(architecture, &path).unwrap();
        let sha256 = digest::sha256_file(&path).unwrap();
        let source = path.display().to_string();
        assert_eq!(loaded, Pretrained { weights, normalization, source, sha256 });
    }
    let error = from_file(Architecture::Vgg16, &path).unwrap_err();
    let expected = format!("`{}` does not hold the weights of `ARCHITECTURE: vgg16`", path.display());
    assert_eq!(error.to_string(), expected);
    let source = std::error::Error::source(&error).unwrap().to_string();
    let got = &random(Architecture::Compact).0["features.0.weight"].shape;
    let expected = format!("weights `features.0.weight`: expected shape [64, 3, 3, 3], got {got:?}");
    assert_eq!(source, expected);
}

#[test]
fn safetensors_lose_their_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let weights = random(Architecture::Vgg16);
    let mut with_head = weights.clone();
    with_head.0.insert("head.bias".to_owned(), weights.0["features.0.bias"].clone());
    with_head.save(&path).unwrap();
    let loaded = from_file(Architecture::Vgg16, &path).unwrap();
    assert_eq!(loaded.normalization, Normalization::Torchvision);
    assert_eq!(loaded.weights, weights);
}

#[test]
fn torch_checkpoints_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    let weights = random(Architecture::Compact);
    fs_err::write(&path, checkpoint(&weights, "FloatStorage")).unwrap();
    let loaded = from_file(Architecture::Compact, &path).unwrap();
    assert_eq!(loaded.weights, weights);
    assert_eq!(loaded.normalization, Normalization::Unit);
    fs_err::write(&path, checkpoint(&weights, "IntStorage")).unwrap();
    let error = from_file(Architecture::Compact, &path).unwrap_err();
    let expected = format!("`{}`: expected `features.0.weight` as F32, got I32", path.display());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        let error = from_file(Architecture::Vgg16, &path).unwrap_err();
        error.to_string().replace(&path.display().to_string(), name)
    };
    assert_eq!(error("a.npz", b""), "`a.npz`: expected weights as `.h5`, `.pth` or `.safetensors`");
    assert_eq!(error("a.pth", b"no"), "`a.pth` is not a PyTorch checkpoint of a state dict");
    assert_eq!(error("a.h5", b"no"), "`a.h5`: not an HDF5 file: it starts with `no`");
    assert!(error("a.safetensors", b"no").contains("a.safetensors"));
    let absent = from_file(Architecture::Vgg16, &folder.path().join("b.pth")).unwrap_err();
    assert!(absent.to_string().contains("b.pth"), "{absent}");
}

/// A state dict as `torch.save` writes it: a stored zip of a pickle (protocol 2) and raw arrays.
fn checkpoint(weights: &Weights, storage: &str) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    for (number, (key, tensor)) in weights.0.iter().enumerate() {
        text(&mut pickle, key);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(format!("ctorch\n{storage}\n").bytes());
        text(&mut pickle, &number.to_string());
        text(&mut pickle, "cpu");
        integer(&mut pickle, tensor.values.len());
        pickle.extend(b"tQK\x00(");
        tensor.shape.iter().for_each(|&extent| integer(&mut pickle, extent));
        pickle.extend(b"t(");
        (0..tensor.shape.len())
            .for_each(|axis| integer(&mut pickle, tensor.shape[axis + 1..].iter().product()));
        pickle.extend(b"t\x89}tR");
    }
    pickle.extend(b"u.");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut add = |name: String, bytes: &[u8]| {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("archive/data.pkl".to_owned(), &pickle);
    add("archive/byteorder".to_owned(), b"little");
    for (number, tensor) in weights.0.values().enumerate() {
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        add(format!("archive/data/{number}"), &bytes);
    }
    add("archive/version".to_owned(), b"3\n");
    zip.finish().unwrap().into_inner()
}

/// `BINUNICODE`.
fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.bytes());
}

/// `BININT`.
fn integer(pickle: &mut Vec<u8>, value: usize) {
    pickle.push(b'J');
    pickle.extend((value as i32).to_le_bytes());
}

/// Serves one file; the first answer may break off. Counts its requests.
struct Server {
    address: String,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start(body: Vec<u8>, break_first_after: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/vgg16/notop.h5", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
                let range = read_range(&mut BufReader::new(&stream));
                let (status, start) = if range > 0 { ("206 Partial Content", range) } else { ("200 OK", 0) };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n\
                     ETag: \"one\"\r\nAccept-Ranges: bytes\r\nConnection: close\r\n\r\n",
                    body.len() - start,
                    body.len() - 1,
                    body.len()
                );
                let end = break_first_after.filter(|_| first).unwrap_or(body.len());
                // The client may hang up first.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[start..end]));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// First byte that the request asks for.
fn read_range(request: &mut impl BufRead) -> usize {
    let mut start = 0;
    for line in request.lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().unwrap();
        }
    }
    start
}

fn downloader() -> Downloader {
    Downloader { attempts: 2, first_pause: Duration::from_millis(1), read_timeout: Duration::from_secs(20) }
}

fn fetch(server: &str, checksum: Checksum, cache: &Path) -> Result<(String, PathBuf), PretrainedError> {
    let table = [Published { url: server.to_owned(), checksum }];
    pretrained::fetch(Architecture::Vgg16, &table, downloader(), cache, &Silent)
}

fn md5(bytes: &[u8]) -> Checksum {
    Checksum::Md5(digest::hex(&Md5::digest(bytes)))
}

#[test]
fn a_broken_download_is_resumed_verified_and_then_taken_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let weights = keras_file(Architecture::Vgg16, &folder.path().join("source.h5"));
    let body = fs_err::read(folder.path().join("source.h5")).unwrap();
    let checksum = md5(&body);
    let server = Server::start(body.clone(), Some(1_000_000));
    let cache = folder.path().join("cache");
    let (url, path) = fetch(&server.address, checksum.clone(), &cache).unwrap();
    assert_eq!((url.as_str(), path.clone()), (server.address.as_str(), cache.join("notop.h5")));
    assert_eq!(server.requests(), 2);
    assert!(fs_err::read(&path).unwrap() == body, "the file is not what the server has");
    assert_eq!(from_file(Architecture::Vgg16, &path).unwrap().weights, weights);
    fetch(&server.address, checksum, &cache).unwrap();
    assert_eq!(server.requests(), 2);
}

#[test]
fn a_wrong_checksum_leaves_nothing_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(b"something else".to_vec(), None);
    let expected = "0123456789abcdef0123456789abcdef";
    let error = fetch(&server.address, Checksum::Md5(expected.to_owned()), folder.path()).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(expected), "{source}");
    assert!(!folder.path().join("notop.h5").exists());
}

#[test]
fn a_spoilt_file_in_the_cache_is_downloaded_again() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("notop.h5"), "spoilt").unwrap();
    let server = Server::start(b"good".to_vec(), None);
    let (_, path) = fetch(&server.address, md5(b"good"), folder.path()).unwrap();
    assert_eq!(fs_err::read(path).unwrap(), b"good");
}

#[test]
fn without_a_network_the_error_says_what_to_put_where() {
    let folder = tempfile::tempdir().unwrap();
    // A port that was free a moment ago refuses connections.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/notop.h5");
    let error = fetch(&url, Checksum::Sha256Prefix("397923af".to_owned()), folder.path()).unwrap_err();
    let path = folder.path().join("notop.h5").display().to_string();
    assert_eq!(error.to_string(), format!("`{url}` cannot be downloaded to `{path}`"));
    let expected = format!(
        "put the file (sha256 starts with 397923af) at `{path}`, or set `WEIGHTS: none`, which starts \
         from random weights and goes better with `ARCHITECTURE: compact`"
    );
    assert_eq!(error.hint().unwrap(), expected);
}

#[test]
fn any_published_file_in_the_cache_serves() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("vgg16.pth"), "torch").unwrap();
    let file = |name: &str, checksum| Published { url: format!("http://127.0.0.1:1/{name}"), checksum };
    let prefix = digest::sha256(b"torch")[..8].to_owned();
    let table = [file("notop.h5", md5(b"keras")), file("vgg16.pth", Checksum::Sha256Prefix(prefix))];
    let found = pretrained::fetch(Architecture::Vgg16, &table, downloader(), folder.path(), &Silent).unwrap();
    assert_eq!(found, ("http://127.0.0.1:1/vgg16.pth".to_owned(), folder.path().join("vgg16.pth")));
}

#[test]
fn the_table_names_the_published_files() {
    let table = pretrained::published(Architecture::Vgg16);
    assert!(table[0].url.ends_with("/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"));
    assert_eq!(table[0].checksum, Checksum::Md5("6d6bbae143d832006294945121d1f1fc".to_owned()));
    assert!(table[1].url.ends_with("/vgg16-397923af.pth"));
    assert_eq!(table[1].checksum, Checksum::Sha256Prefix("397923af".to_owned()));
}
