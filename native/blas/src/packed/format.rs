//! What a matrix is stored as, and where its parts lie.

/// Outputs of a strip: lanes of the widest vector.
pub const STRIP: usize = 16;

/// Floats as a file holds them.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision, as bits.
    F16(&'a [u16]),
    /// The upper half of single precision, as bits.
    Bf16(&'a [u16]),
}

/// A matrix `[out, inner]` of codes: the weight is `code * scale + bias`, with a scale and a bias for each group of
/// neighbours in a row.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// `[out, inner * bits / 32]`: a row's codes one after the other, from the lowest bit up.
    pub codes: &'a [u32],
    /// `[out, inner / group]`.
    pub scales: Numbers<'a>,
    /// `[out, inner / group]`, of the scales' type.
    pub biases: Numbers<'a>,
    /// 2, 3, 4, 5, 6 or 8.
    pub bits: usize,
    /// 32, 64 or 128.
    pub group: usize,
}

/// The parts of a matrix do not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError(pub(super) String);

impl std::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShapeError {}

/// Type of a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl Numbers<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::F16(data) | Self::Bf16(data) => data.len(),
        }
    }

    pub(super) fn float(&self) -> Float {
        match self {
            Self::F32(_) => Float::F32,
            Self::F16(_) => Float::F16,
            Self::Bf16(_) => Float::Bf16,
        }
    }
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Codes of so many bits, with scales and biases of a type.
    Affine(usize, Float),
    /// Floats.
    Plain(Float),
}

impl Kind {
    /// Whether weights are codes, whose products take activations as whole numbers.
    pub fn is_codes(self) -> bool {
        matches!(self, Self::Affine(..))
    }
}

/// The parts of a strip: for each group its weights, then 16 scales and 16 biases where it has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub kind: Kind,
    /// Weights of a row that lie together.
    pub group: usize,
}

impl Layout {
    /// Bytes of a group's weights.
    pub fn weight_bytes(self) -> usize {
        match self.kind {
            Kind::Affine(bits, _) => STRIP * self.group * bits / 8,
            Kind::Plain(float) => STRIP * self.group * float.bytes(),
        }
    }

    /// Bytes of a group.
    pub fn group_bytes(self) -> usize {
        let scales = match self.kind {
            Kind::Affine(_, float) => 2 * STRIP * float.bytes(),
            Kind::Plain(_) => 0,
        };
        self.weight_bytes() + scales
    }

    /// Lines of 64 bytes that a strip's group takes once decoded: one for two codes or one float of each output.
    pub fn decoded_lines(self) -> usize {
        if self.kind.is_codes() { self.group / 2 } else { self.group }
    }
}
