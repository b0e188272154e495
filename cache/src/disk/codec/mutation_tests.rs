//! Headers and files, changed in every way: an error with a reason or the same block, never another one, never a panic.

use proptest::prelude::*;

use super::*;
use crate::payload::TensorBytes;
use crate::testing::{cases, payload};

const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);

fn block() -> Block {
    let (tenant, tokens) = (Tenant::PUBLIC, vec![5, 70_000, 6]);
    let key = BlockKey::derive(&FINGERPRINT, &tenant, None, &tokens);
    Block { key, parent: None, tenant, start: 0, tokens, payload: payload(&[5, 70_000, 6], 0) }
}

fn file(part: Part) -> Vec<u8> {
    let block = block();
    let encoded = encode(&FINGERPRINT, &block, part).unwrap();
    let tensors = encoded.order.iter().flat_map(|index| block.payload.tensors[*index].data.to_vec());
    encoded.head.iter().copied().chain(tensors).collect()
}

/// Everything that reading a file does, without the file. `None` when the bytes are refused.
fn read(bytes: &[u8]) -> Option<(Header, Vec<Vec<u8>>)> {
    let field = bytes.get(..LENGTH_BYTES)?.try_into().ok()?;
    let header_bytes = header_bytes(field, bytes.len() as u64).ok()?;
    let header = decode(bytes.get(LENGTH_BYTES..LENGTH_BYTES + header_bytes)?, bytes.len() as u64).ok()?;
    let mut at = LENGTH_BYTES + header_bytes;
    let mut tensors = Vec::new();
    for tensor in &header.tensors {
        let data = bytes.get(at..at + tensor.bytes)?.to_vec();
        if blake3::hash(&data) != tensor.checksum {
            return None;
        }
        at += tensor.bytes;
        tensors.push(data);
    }
    Some((header, tensors))
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Put(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    /// One piece of the file over another.
    Move(usize, usize, usize),
    /// The length field says something else.
    Claim(u64),
    /// A digit becomes another: lengths, offsets, checksums, ids.
    Digit(usize, u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || any::<usize>();
    prop_oneof![
        4 => (at(), 0_u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Put(at, byte)),
        1 => at().prop_map(Mutation::Cut),
        2 => (at(), 1_usize..40).prop_map(|(at, count)| Mutation::Remove(at, count)),
        2 => (at(), proptest::collection::vec(any::<u8>(), 1..24)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), at(), 1_usize..80).prop_map(|(from, to, count)| Mutation::Move(from, to, count)),
        1 => any::<u64>().prop_map(Mutation::Claim),
        1 => (0_u64..4_096).prop_map(Mutation::Claim),
        4 => (at(), 0_u8..16).prop_map(|(at, digit)| Mutation::Digit(at, digit)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match mutation {
        Mutation::Flip(at, bit) => bytes[at % len] ^= 1 << bit,
        Mutation::Put(at, byte) => bytes[at % len] = *byte,
        Mutation::Cut(at) => bytes.truncate(at % (len + 1)),
        Mutation::Remove(at, count) => {
            let at = at % len;
            bytes.drain(at..len.min(at + count));
        }
        Mutation::Insert(at, new) => {
            let at = at % (len + 1);
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Move(from, to, count) => {
            let (from, to) = (from % len, to % len);
            let piece: Vec<u8> = bytes[from..len.min(from + count)].to_vec();
            bytes.iter_mut().skip(to).zip(piece).for_each(|(old, new)| *old = new);
        }
        Mutation::Claim(length) => {
            bytes.iter_mut().zip(length.to_le_bytes()).for_each(|(old, new)| *old = new);
        }
        Mutation::Digit(at, digit) => {
            let digits: Vec<usize> = (0..len).filter(|at| bytes[*at].is_ascii_hexdigit()).collect();
            if let Some(at) = digits.get(at % digits.len().max(1)) {
                bytes[*at] = char::from_digit(u32::from(*digit), 16).map_or(b'0', |digit| digit as u8);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn a_mutated_file_is_refused_or_says_what_it_said(
        window in any::<bool>(),
        mutations in proptest::collection::vec(mutation(), 1..4),
    ) {
        let sound = file(if window { Part::Window } else { Part::Full });
        let mut mutated = sound.clone();
        for mutation in &mutations {
            mutate(&mut mutated, mutation);
        }
        let checked = crate::maintenance::check_block_bytes(&mutated);
        prop_assert_eq!(checked.is_ok(), read(&mutated).is_some());
        prop_assert!(checked.is_err() || checked == Ok(block().key));
        if let Some(found) = read(&mutated) {
            // Blanks, the order of entries and capitals may differ; nothing that is said may.
            let (mut header, tensors) = found;
            let (expected, data) = read(&sound).unwrap();
            header.head_bytes = expected.head_bytes;
            prop_assert_eq!((header, tensors), (expected, data));
        }
    }

    #[test]
    fn bytes_that_were_never_a_block_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(read(&bytes).is_none());
    }

    #[test]
    fn any_block_round_trips(
        tokens in proptest::collection::vec(any::<u32>(), 1..40),
        sizes in proptest::collection::vec((any::<bool>(), 0_usize..200), 0..6),
        blocks_before in 0_usize..3,
    ) {
        let tensor = |(index, (window, bytes)): (usize, (bool, usize))| TensorBytes {
            name: format!("{index}.\"name\""),
            part: if window { Part::Window } else { Part::Full },
            dtype: Dtype::U8,
            shape: vec![bytes],
            data: vec![index as u8; bytes].into(),
        };
        let parent = (blocks_before > 0).then(|| BlockKey::from_bytes([9; 32]));
        let tenant = Tenant::derive(b"somebody");
        let key = BlockKey::derive(&FINGERPRINT, &tenant, parent.as_ref(), &tokens);
        let payload = Payload { tensors: sizes.into_iter().enumerate().map(tensor).collect() };
        let block = Block { key, parent, tenant, start: blocks_before * 256, tokens, payload };
        for part in [Part::Full, Part::Window] {
            let encoded = encode(&FINGERPRINT, &block, part).unwrap();
            let header = decode(&encoded.head[LENGTH_BYTES..], encoded.file_bytes).unwrap();
            prop_assert_eq!(header.key(), block.key);
            prop_assert_eq!((header.start, &header.tokens), (block.start, &block.tokens));
            let places: Vec<usize> = header.tensors.iter().map(|tensor| tensor.order).collect();
            // Tensors without bytes share an offset; their places say which is which.
            prop_assert_eq!(places, encoded.order);
        }
    }
}
