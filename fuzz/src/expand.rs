//! Small inputs for large files: weights of a network are a megabyte, of which a reader that is fuzzed looks
//! at a few kilobytes.

/// Stands, with a little-endian u32 after it, for as many zero bytes.
pub const ZEROS: &[u8] = b"\xf5zeros";
/// Shortest run of zeros that [`pack`] writes as such.
const WORTH: usize = 32;
/// Bytes that an input expands to, at most.
pub const MOST: usize = 4 << 20;

/// The file that an input stands for; `None` where it would be longer than [`MOST`].
pub fn expand(mut input: &[u8]) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    while let Some(place) = input.windows(ZEROS.len()).position(|window| window == ZEROS) {
        let (before, after) = (&input[..place], &input[place + ZEROS.len()..]);
        file.extend_from_slice(before);
        let Some((count, rest)) = after.split_first_chunk::<4>() else { break };
        let length = file.len() + u32::from_le_bytes(*count) as usize;
        if length > MOST {
            return None;
        }
        file.resize(length, 0);
        input = rest;
    }
    file.extend_from_slice(input);
    (file.len() <= MOST).then_some(file)
}

/// The input that stands for a file.
pub fn pack(file: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    let mut rest = file;
    while let Some(&byte) = rest.first() {
        let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
        if zeros < WORTH {
            input.push(byte);
            rest = &rest[1..];
        } else {
            input.extend_from_slice(ZEROS);
            input.extend_from_slice(&(zeros as u32).to_le_bytes());
            rest = &rest[zeros..];
        }
    }
    input
}
