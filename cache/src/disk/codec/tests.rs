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

fn file(block: &Block) -> Vec<u8> {
    let encoded = encode(&FINGERPRINT, block).unwrap();
    let tensors = encoded.order.iter().flat_map(|index| block.payload.tensors[*index].data.clone());
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
    let bytes = file(&block);
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for tensor in &block.payload.tensors {
        let view = tensors.tensor(&tensor.name).unwrap();
        assert_eq!(
            (view.dtype(), view.shape(), view.data()),
            (tensor.dtype, &tensor.shape[..], &tensor.data[..])
        );
    }
}

#[test]
fn the_same_block_gives_the_same_bytes() {
    let block = block(payload(&[5, 70_000, 6], 0));
    assert_eq!(file(&block), file(&block));
    assert_eq!(read(&file(&block)).unwrap().key(), block.key);
}

#[test]
fn full_tensors_come_first_and_keep_their_place_in_the_payload() {
    let block = block(payload(&[5, 70_000, 6], 0));
    let header = read(&file(&block)).unwrap();
    let parts: Vec<_> = header.tensors.iter().map(|tensor| (tensor.part, tensor.order)).collect();
    assert_eq!(parts, [(Part::Full, 1), (Part::Full, 2), (Part::Window, 0)]);
    assert_eq!(header.full_bytes(), encode(&FINGERPRINT, &block).unwrap().full_bytes);
}

#[test]
fn a_block_without_tensors_or_with_empty_ones_round_trips() {
    let empty = |name: &str, part| TensorBytes {
        name: name.into(),
        part,
        dtype: Dtype::F16,
        shape: vec![0, 4],
        data: Vec::new(),
    };
    let tensors = vec![empty("b", Part::Window), empty("a", Part::Window), empty("c", Part::Full)];
    assert_eq!(read(&file(&block(Payload { tensors }))).unwrap().tensors.len(), 3);
    assert!(read(&file(&block(Payload::default()))).unwrap().tensors.is_empty());
}

#[test]
fn payloads_that_contradict_themselves_are_refused() {
    let mut twice = payload(&[1, 2, 3], 0);
    twice.tensors[1].name = "0.window".into();
    assert_eq!(encode(&FINGERPRINT, &block(twice)).unwrap_err(), "tensor name \"0.window\" is taken");
    let mut short = payload(&[1, 2, 3], 0);
    short.tensors[1].data.pop();
    assert!(encode(&FINGERPRINT, &block(short)).unwrap_err().starts_with("tensors do not fit safetensors"));
    let mut reserved = payload(&[1, 2, 3], 0);
    reserved.tensors[0].name = "__metadata__".into();
    assert!(encode(&FINGERPRINT, &block(reserved)).is_err());
}

#[test]
fn every_flipped_bit_of_a_header_is_found() {
    let block = block(payload(&[5, 70_000, 6], 0));
    let bytes = file(&block);
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
    let bytes = file(&block);
    let head = read(&bytes).unwrap().head_bytes as usize;
    let text = String::from_utf8(bytes[LENGTH_BYTES..head].to_vec()).unwrap();
    let newer = text.replace("\"prefixd.block\":\"1\"", "\"prefixd.block\":\"2\"");
    assert_ne!(newer, text);
    let error = decode(newer.as_bytes(), bytes.len() as u64).unwrap_err();
    assert_eq!(error, ReadError::Format { found: "2".into(), expected: 1 });
}
