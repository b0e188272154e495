//! Bytes of block files, without files.

use super::*;
use crate::payload::TensorBytes;
use crate::testing::payload;

const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);

fn block(payload: Payload) -> Block {
    let (tenant, tokens) = (Tenant::PUBLIC, vec![5, 70_000, 6]);
    let key = BlockKey::derive(&FINGERPRINT, &tenant, None, &tokens);
    Block { key, parent: None, tenant, start: 0, tokens, payload }
}

/// A block of format 1, as the first version wrote it: payload of the tokens 5, 70000, 6.
const V1_BLOCK: &[u8] = include_bytes!("../../../fixtures/v1-block.safetensors");

fn file(block: &Block, part: Part) -> Vec<u8> {
    let encoded = encode(&FINGERPRINT, block, part).unwrap();
    let tensors = encoded.order.iter().flat_map(|index| block.payload.tensors[*index].data.to_vec());
    let bytes: Vec<u8> = encoded.head.iter().copied().chain(tensors).collect();
    assert_eq!(bytes.len() as u64, encoded.file_bytes);
    bytes
}

fn read(bytes: &[u8]) -> Result<Header, ReadError> {
    let field = bytes[..LENGTH_BYTES].try_into().unwrap();
    let header = header_bytes(field, bytes.len() as u64)?;
    decode(&bytes[LENGTH_BYTES..LENGTH_BYTES + header], bytes.len() as u64)
}

#[test]
fn any_safetensors_reader_reads_a_block() {
    let block = block(payload(&[5, 70_000, 6], 0));
    let files = [file(&block, Part::Full), file(&block, Part::Window)];
    let [full, window] = files.each_ref().map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    assert_eq!((full.len(), window.len()), (2, 1));
    for tensor in &block.payload.tensors {
        let file = if tensor.part == Part::Full { &full } else { &window };
        let view = file.tensor(&tensor.name).unwrap();
        assert_eq!(
            (view.dtype(), view.shape(), view.data()),
            (tensor.dtype, &tensor.shape[..], &tensor.data[..])
        );
    }
}

#[test]
fn the_same_block_gives_the_same_bytes() {
    let block = block(payload(&[5, 70_000, 6], 0));
    for part in [Part::Full, Part::Window] {
        assert_eq!(file(&block, part), file(&block, part));
        assert_eq!(read(&file(&block, part)).unwrap().key(), block.key);
    }
}

#[test]
fn each_part_is_a_file_and_its_tensors_keep_their_place_in_the_payload() {
    let block = block(payload(&[5, 70_000, 6], 0));
    let (full, window) =
        (read(&file(&block, Part::Full)).unwrap(), read(&file(&block, Part::Window)).unwrap());
    let parts = |header: &Header| -> Vec<(Part, usize)> {
        header.tensors.iter().map(|tensor| (tensor.part, tensor.order)).collect()
    };
    assert_eq!(full.contents, Contents::Full { window: true });
    assert_eq!(window.contents, Contents::Window);
    assert_eq!(parts(&full), [(Part::Full, 1), (Part::Full, 2)]);
    assert_eq!(parts(&window), [(Part::Window, 0)]);
}

#[test]
fn format_2_is_what_it_was_when_it_was_released() {
    let block = block(payload(&[5, 70_000, 6], 0));
    let released: [(&[u8], Part); 2] = [
        (include_bytes!("../../../fixtures/v2-block.safetensors"), Part::Full),
        (include_bytes!("../../../fixtures/v2-block.window.safetensors"), Part::Window),
    ];
    for (bytes, part) in released {
        assert_eq!(read(bytes), read(&file(&block, part)));
    }
}

#[test]
fn a_block_of_format_1_is_read() {
    let header = read(V1_BLOCK).unwrap();
    let parts: Vec<_> = header.tensors.iter().map(|tensor| (tensor.part, tensor.order)).collect();
    assert_eq!(header.contents, Contents::All);
    assert_eq!(parts, [(Part::Full, 1), (Part::Full, 2), (Part::Window, 0)]);
    assert_eq!(header.key(), block(Payload::default()).key);
}

#[test]
fn a_block_without_tensors_or_with_empty_ones_round_trips() {
    let empty = |name: &str, part| TensorBytes {
        name: name.into(),
        part,
        dtype: Dtype::F16,
        shape: vec![0, 4],
        data: Vec::new().into(),
    };
    let tensors = vec![empty("b", Part::Window), empty("a", Part::Window), empty("c", Part::Full)];
    let both = block(Payload { tensors });
    assert_eq!(read(&file(&both, Part::Full)).unwrap().tensors.len(), 1);
    assert_eq!(read(&file(&both, Part::Window)).unwrap().tensors.len(), 2);
    let none = read(&file(&block(Payload::default()), Part::Full)).unwrap();
    assert!(none.tensors.is_empty() && none.contents == Contents::Full { window: false });
}

#[test]
fn payloads_that_contradict_themselves_are_refused() {
    let mut twice = payload(&[1, 2, 3], 0);
    twice.tensors[1].name = "0.window".into();
    assert_eq!(
        encode(&FINGERPRINT, &block(twice), Part::Full).unwrap_err(),
        "tensor name \"0.window\" is taken"
    );
    let mut short = payload(&[1, 2, 3], 0);
    let data = &mut short.tensors[1].data;
    *data = data.slice(0..data.len() - 1);
    let error = encode(&FINGERPRINT, &block(short), Part::Full).unwrap_err();
    assert!(error.starts_with("tensors do not fit safetensors"), "{error}");
    let mut reserved = payload(&[1, 2, 3], 0);
    reserved.tensors[0].name = "__metadata__".into();
    assert!(encode(&FINGERPRINT, &block(reserved), Part::Window).is_err());
}

#[test]
fn every_flipped_bit_of_a_header_is_found() {
    let block = block(payload(&[5, 70_000, 6], 0));
    let bytes = file(&block, Part::Full);
    let sound = read(&bytes).unwrap();
    let head = sound.head_bytes as usize;
    for at in 0..head {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            // A digit in capitals, or a blank where a blank may be, says the same; nothing else may pass.
            if let Ok(header) = read(&flipped) {
                assert_eq!(header, sound, "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn a_giant_header_is_refused_before_it_is_read() {
    assert!(matches!(
        header_bytes(u64::MAX.to_le_bytes(), 1_000),
        Err(ReadError::Length { found: 1_000, .. })
    ));
    let field = (MAX_HEADER_BYTES + 1).to_le_bytes();
    assert!(matches!(header_bytes(field, 1 << 40), Err(ReadError::Header(_))));
}

#[test]
fn another_format_version_is_named() {
    let block = block(payload(&[5, 70_000, 6], 0));
    let bytes = file(&block, Part::Full);
    let head = read(&bytes).unwrap().head_bytes as usize;
    let text = String::from_utf8(bytes[LENGTH_BYTES..head].to_vec()).unwrap();
    let newer = text.replace("\"prefixd.block\":\"2\"", "\"prefixd.block\":\"4\"");
    assert_ne!(newer, text);
    let error = decode(newer.as_bytes(), bytes.len() as u64).unwrap_err();
    assert_eq!(error, ReadError::Format { found: "4".into(), expected: 3 });
}
