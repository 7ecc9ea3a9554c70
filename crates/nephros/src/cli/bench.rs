//! Arguments of `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nephros_conv::Isa;

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to time
    #[arg(value_enum)]
    pub what: Benchmark,
    /// Weights of VGG16 with a head, as safetensors, in f32 or 8 bits
    #[arg(long, value_name = "FILE.safetensors")]
    pub weights: PathBuf,
    /// Images as little-endian floats, [images, 3, 224, 224]
    #[arg(long, value_name = "FILE.f32")]
    pub input: PathBuf,
    /// File for 8-bit weights
    #[arg(long, value_name = "FILE.safetensors", required_if_eq("what", "quantize"))]
    pub out: Option<PathBuf>,
    /// Images in a call
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: u32,
    /// Threads; 0 takes all cores
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub threads: u32,
    /// Timed calls
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub iters: u32,
    /// Arithmetic of the convolutions
    #[arg(long, value_enum, default_value_t = BenchPrecision::F32)]
    pub precision: BenchPrecision,
    /// Instruction set of the kernels; by default the fastest that this processor has
    #[arg(long, value_enum)]
    pub isa: Option<InstructionSet>,
    /// Print one JSON line
    #[arg(long)]
    pub json: bool,
}

/// What can be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Benchmark {
    /// The forward pass of VGG16, from input to logits
    Forward,
    /// Nothing: writes the weights in 8 bits, calibrated on the first 8 images of the input
    Quantize,
}

/// Arithmetic that a benchmark can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchPrecision {
    /// 32-bit floats
    F32,
    /// 8-bit whole numbers
    Int8,
    /// Refused: slower than int8 and less exact than f32 (docs/adr/0008-winograd.md)
    Bf16,
}

/// Instruction set of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InstructionSet {
    /// What every processor has
    Portable,
    /// NEON of 64-bit ARM
    Neon,
    /// AVX2 and FMA of x86-64
    Avx2,
    /// AVX-512 of x86-64
    Avx512,
}

impl From<InstructionSet> for Isa {
    fn from(set: InstructionSet) -> Self {
        match set {
            InstructionSet::Portable => Self::Portable,
            InstructionSet::Neon => Self::Neon,
            InstructionSet::Avx2 => Self::Avx2,
            InstructionSet::Avx512 => Self::Avx512,
        }
    }
}
