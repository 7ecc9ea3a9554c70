//! `kill -9` of the server while clients ask it: whatever they were told is in the store, nothing is torn, and
//! the next server goes on with the same log.

use std::{
    collections::HashMap,
    env,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use nephros_core::digest::sha256;
use serde_json::{Value, json};

use crate::{
    bed::{Bed, history},
    common::{
        model::bitmap,
        server::{Server, exchange},
    },
};

/// How many points there are, where somebody wants more than a few.
const POINTS: &str = "NEPHROS_KILL_POINTS";
/// Each client waits for its answer before it asks again.
const CLIENTS: usize = 4;
/// The server is killed at most so long after it listens.
const LONGEST_MS: u64 = 400;

/// What a client was told of a prediction.
#[derive(Debug)]
struct Told {
    receipt: String,
    label: Value,
    probability: Value,
    image_sha256: String,
    /// Whether it was told, too, that its word about it is stored.
    judged: bool,
}

impl Told {
    fn of(answer: &Value, image: &[u8]) -> Self {
        Self {
            receipt: answer["receipt"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned(),
            label: answer["label"].clone(),
            probability: answer["probability"].clone(),
            image_sha256: sha256(image),
            judged: false,
        }
    }
}

/// An image that no other is like.
fn image(number: &AtomicU32) -> Vec<u8> {
    let [red, green, blue, _] = number.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    bitmap(32, [red, green, blue])
}

/// Status and body of an answer that came as a whole; `None` where the server is gone.
fn whole(address: &str, asked: &str, headers: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let answer = exchange(address, asked, headers, body).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let length =
        head.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    let body = &answer[end + 4..];
    (body.len() == length).then(|| (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_vec()))
}

/// Asks until the server is gone: one image, then three in a request, then says a word about the last.
fn client(address: &str, number: &AtomicU32, answered: &AtomicBool) -> Vec<Told> {
    let mut told = Vec::new();
    let mut one_more = || {
        let single = image(number);
        let headers = "Content-Type: image/bmp\r\nX-Nephros-Subject: anna\r\n";
        let (status, body) = whole(address, "POST /api/v1/predictions", headers, &single)?;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200, "{answer}");
        told.push(Told::of(&answer, &single));
        answered.store(true, Ordering::Release);

        let images = [(); 3].map(|()| image(number));
        let encoded = images.each_ref().map(|image| BASE64_STANDARD.encode(image));
        let body = json!({ "images": encoded }).to_string();
        let headers = "Content-Type: application/json\r\n";
        let (status, body) = whole(address, "POST /api/v1/predictions", headers, body.as_bytes())?;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200, "{answer}");
        let answers = answer["predictions"].as_array().unwrap();
        told.extend(answers.iter().zip(&images).map(|(answer, image)| Told::of(answer, image)));

        let last = told.last_mut()?;
        let asked = format!("POST /api/v1/history/{}/feedback", last.receipt);
        let (status, _) = whole(address, &asked, headers, br#"{"verdict": "agrees"}"#)?;
        assert_eq!(status, 204);
        last.judged = true;
        Some(())
    };
    while one_more().is_some() {}
    told
}

/// Whether the server lists all that clients were told, as they were told it.
fn check(server: &Server, told: &[Told]) {
    let receipt = |entry: &Value| entry["receipt"].as_str().unwrap().to_owned();
    let listed: HashMap<String, Value> =
        history(server).into_iter().map(|entry| (receipt(&entry), entry)).collect();
    for told in told {
        let entry = listed.get(&told.receipt).unwrap_or_else(|| panic!("lost: {told:?}"));
        let listed = (&entry["label"], &entry["probability"], entry["image_sha256"].as_str().unwrap());
        assert_eq!(listed, (&told.label, &told.probability, told.image_sha256.as_str()), "{told:?}");
        let words = entry["feedback"].as_array().unwrap().len();
        assert!(words == 1 || (words == 0 && !told.judged), "{entry} {told:?}");
    }
}

/// Asks a server from all sides, kills it at a random point, and gives what the clients were told. Such a point
/// is after the first answer where `late`, and anywhere after the server listens otherwise.
fn killed(server: Server, number: &Arc<AtomicU32>, late: bool) -> Vec<Told> {
    let answered = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, number) = (server.address.clone(), Arc::clone(number));
            let answered = Arc::clone(&answered);
            thread::spawn(move || client(&address, &number, &answered))
        })
        .collect();
    while late && !answered.load(Ordering::Acquire) && !clients.iter().any(thread::JoinHandle::is_finished) {
        thread::yield_now();
    }
    // The point itself, not a wait for something.
    thread::sleep(Duration::from_micros(RandomState::new().hash_one(()) % (LONGEST_MS * 1000)));
    server.kill();
    clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
}

fn survives(bed: &Bed, default: usize) {
    let points = env::var(POINTS).map_or(default, |text| text.parse().unwrap());
    let (mut told, number) = (Vec::new(), Arc::new(AtomicU32::new(0)));
    let mut stored = 0;
    for point in 1..=points {
        let server = bed.serve();
        check(&server, &told);
        told.extend(killed(server, &number, point % 2 == 0));
        let found = bed.verify();
        let predictions = found["predictions"].as_u64().unwrap();
        assert!(predictions >= told.len() as u64 && predictions >= stored, "point {point}: {found}");
        assert_eq!(found["decrypted"], found["predictions"], "point {point}: {found}");
        assert_eq!(found["replay"]["differing"], json!([]), "point {point}: {found}");
        stored = predictions;
    }
    let server = bed.serve();
    check(&server, &told);
    assert_eq!(history(&server).len() as u64, stored);
    server.stop();
    let judged = told.iter().filter(|told| told.judged).count();
    let acknowledged = told.len();
    println!(
        "killed at {points} points: {acknowledged} predictions and {judged} words acknowledged, {stored} predictions \
         stored, none lost"
    );
    assert!(acknowledged >= points / 2, "the server answered nothing before it was killed");
}

#[test]
fn what_was_answered_outlives_the_server_on_sqlite() {
    survives(&Bed::sqlite(), 6);
}

#[test]
fn what_was_answered_outlives_the_server_on_postgres() {
    if let Some(bed) = Bed::postgres() {
        survives(&bed, 3);
    }
}
