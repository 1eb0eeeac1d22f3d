//! The problems that `run` measures: shapes that a reader knows, each with where it comes from.

use serde_json::Value;

use super::{Entry, OPS, Size};
use crate::plan::{DeviceInfo, DeviceKind};

/// A named problem of the default grid.
pub struct Layer {
    /// Op.
    pub op: &'static str,
    /// Sizes of `run` that have it.
    pub sizes: &'static [Size],
    /// Kinds of device that have it.
    pub on: &'static [DeviceKind],
    /// What it is, in the words of the network it comes from.
    pub name: &'static str,
    /// Its fields as JSON; those left out take the op's defaults.
    pub fields: &'static str,
}

const ALL: &[Size] = &[Size::Small, Size::Standard, Size::Large];
const BIG: &[Size] = &[Size::Standard, Size::Large];
const SMALL: &[Size] = &[Size::Small];
const LARGE: &[Size] = &[Size::Large];
const CPU: &[DeviceKind] = &[DeviceKind::Cpu];
const GPU: &[DeviceKind] = &[DeviceKind::Gpu];
const ANY: &[DeviceKind] = &[DeviceKind::Cpu, DeviceKind::Gpu];

const fn layer(op: &'static str, sizes: &'static [Size], on: &'static [DeviceKind], name: &'static str, fields: &'static str) -> Layer {
    Layer { op, sizes, on, name, fields }
}

/// All of them, in the order in which they are measured.
///
/// Sources: Llama 7B and 3 8B (Touvron et al., 2023; Meta, 2024), GPT-2 and GPT-3 (Radford et al., 2019; Brown et al., 2020), ResNet-50
/// (He et al., 2016, table 1), MobileNet (Howard et al., 2017, table 1; v2, Sandler et al., 2018, begins with the same depthwise layer),
/// ConvNeXt-T (Liu et al., 2022), Linformer (Wang et al., 2020), Performer (Choromanski et al., 2021). A GPU is filled by a batch, a CPU by one
/// image.
#[rustfmt::skip]
pub const LAYERS: &[Layer] = &[
    layer("matmul", ALL, CPU, "square", r#"{"m": 256, "n": 256, "k": 256}"#),
    layer("matmul", ALL, ANY, "square", r#"{"m": 512, "n": 512, "k": 512}"#),
    layer("matmul", BIG, ANY, "square", r#"{"m": 1024, "n": 1024, "k": 1024}"#),
    layer("matmul", LARGE, CPU, "square", r#"{"m": 2048, "n": 2048, "k": 2048}"#),
    layer("matmul", ALL, GPU, "square", r#"{"m": 2048, "n": 2048, "k": 2048}"#),
    layer("matmul", LARGE, CPU, "square", r#"{"m": 4096, "n": 4096, "k": 4096}"#),
    layer("matmul", BIG, GPU, "square", r#"{"m": 4096, "n": 4096, "k": 4096}"#),
    layer("matmul", LARGE, GPU, "square", r#"{"m": 8192, "n": 8192, "k": 8192}"#),
    layer("matmul", ALL, ANY, "Llama 7B, attention projection of one token", r#"{"m": 1, "n": 4096, "k": 4096}"#),
    layer("matmul", BIG, ANY, "the same as matrix times vector", r#"{"m": 4096, "n": 1, "k": 4096}"#),
    layer("matmul", BIG, ANY, "Llama 7B, eight sequences decoded together", r#"{"m": 8, "n": 4096, "k": 4096}"#),
    layer("matmul", LARGE, ANY, "Llama 7B, feed-forward of a prompt of 128", r#"{"m": 128, "n": 11008, "k": 4096}"#),
    layer("conv2d", BIG, CPU, "ResNet-50 conv2_x, 3x3", r#"{"n": 1, "h": 56, "w": 56, "c_in": 64, "c_out": 64, "k": 3, "padding": 1}"#),
    layer("conv2d", ALL, CPU, "ResNet-50 conv3_x, 3x3", r#"{"n": 1, "h": 28, "w": 28, "c_in": 128, "c_out": 128, "k": 3, "padding": 1}"#),
    layer("conv2d", BIG, CPU, "ResNet-50 conv4_x, 3x3", r#"{"n": 1, "h": 14, "w": 14, "c_in": 256, "c_out": 256, "k": 3, "padding": 1}"#),
    layer("conv2d", BIG, CPU, "ResNet-50 conv2_x, 1x1 that widens", r#"{"n": 1, "h": 56, "w": 56, "c_in": 64, "c_out": 256, "k": 1, "padding": 0}"#),
    layer("conv2d", BIG, GPU, "ResNet-50 conv2_x, 3x3", r#"{"n": 32, "h": 56, "w": 56, "c_in": 64, "c_out": 64, "k": 3, "padding": 1}"#),
    layer("conv2d", ALL, GPU, "ResNet-50 conv3_x, 3x3", r#"{"n": 32, "h": 28, "w": 28, "c_in": 128, "c_out": 128, "k": 3, "padding": 1}"#),
    layer("conv2d", BIG, GPU, "ResNet-50 conv4_x, 3x3", r#"{"n": 32, "h": 14, "w": 14, "c_in": 256, "c_out": 256, "k": 3, "padding": 1}"#),
    layer("conv2d", BIG, GPU, "ResNet-50 conv2_x, 1x1 that widens", r#"{"n": 32, "h": 56, "w": 56, "c_in": 64, "c_out": 256, "k": 1, "padding": 0}"#),
    layer("depthwise", ALL, ANY, "MobileNet and MobileNetV2, first", r#"{"n": 1, "h": 112, "w": 112, "c": 32, "k": 3, "padding": 1}"#),
    layer("depthwise", ALL, CPU, "MobileNet at 56", r#"{"n": 1, "h": 56, "w": 56, "c": 128, "k": 3, "padding": 1}"#),
    layer("depthwise", ALL, CPU, "MobileNet at 28", r#"{"n": 1, "h": 28, "w": 28, "c": 256, "k": 3, "padding": 1}"#),
    layer("depthwise", BIG, CPU, "MobileNet, 56 to 28", r#"{"n": 1, "h": 56, "w": 56, "c": 128, "k": 3, "stride": 2, "padding": 1}"#),
    layer("depthwise", BIG, CPU, "MobileNet at 112 without its stride, past all caches", r#"{"n": 16, "h": 112, "w": 112, "c": 64, "k": 3, "padding": 1}"#),
    layer("depthwise", BIG, CPU, "ConvNeXt-T stage 1", r#"{"n": 1, "h": 56, "w": 56, "c": 96, "k": 7, "padding": 3}"#),
    layer("depthwise", ALL, GPU, "MobileNet at 56", r#"{"n": 64, "h": 56, "w": 56, "c": 128, "k": 3, "padding": 1}"#),
    layer("depthwise", ALL, GPU, "MobileNet at 28", r#"{"n": 64, "h": 28, "w": 28, "c": 256, "k": 3, "padding": 1}"#),
    layer("depthwise", ALL, GPU, "MobileNet, 56 to 28", r#"{"n": 64, "h": 56, "w": 56, "c": 128, "k": 3, "stride": 2, "padding": 1}"#),
    layer("depthwise", BIG, GPU, "MobileNet at 112 without its stride, past all caches", r#"{"n": 64, "h": 112, "w": 112, "c": 64, "k": 3, "padding": 1}"#),
    layer("depthwise", BIG, GPU, "ConvNeXt-T stage 1", r#"{"n": 64, "h": 56, "w": 56, "c": 96, "k": 7, "padding": 3}"#),
    layer("attention", ALL, ANY, "eight heads of 64", r#"{"batch": 1, "heads": 8, "seq": 512, "head_dim": 64, "causal": false}"#),
    layer("attention", BIG, GPU, "16 of GPT-3's heads, two prompts", r#"{"batch": 2, "heads": 16, "seq": 2048, "head_dim": 128, "causal": true}"#),
    layer("attention", BIG, ANY, "GPT-2 reads a prompt", r#"{"batch": 1, "heads": 12, "seq": 1024, "head_dim": 64, "causal": true}"#),
    layer("attention", BIG, ANY, "eight of its heads, a long prompt", r#"{"batch": 1, "heads": 8, "seq": 2048, "head_dim": 64, "causal": true}"#),
    layer("attention", BIG, ANY, "Llama 3 8B generates a token for each of 8 sequences", r#"{"batch": 8, "heads": 32, "kv_heads": 8, "seq_q": 1, "seq_kv": 2048, "head_dim": 128, "causal": true}"#),
    layer("attention", LARGE, ANY, "Llama 3 8B reads a prompt", r#"{"batch": 1, "heads": 32, "kv_heads": 8, "seq": 2048, "head_dim": 128, "causal": true}"#),
    layer("attention", LARGE, ANY, "eight heads of 64, eight times as long", r#"{"batch": 1, "heads": 8, "seq": 4096, "head_dim": 64, "causal": false}"#),
    layer("quantized", SMALL, ANY, "Llama 3 8B, keys of one token, weights in int8", r#"{"m": 1, "n": 1024, "k": 4096, "bits": 8, "group_size": 128}"#),
    layer("quantized", LARGE, ANY, "Llama 7B, attention projection of one token, weights in int8", r#"{"m": 1, "n": 4096, "k": 4096, "bits": 8, "group_size": 128}"#),
    layer("quantized", BIG, ANY, "Llama 7B, attention projection of one token, weights in int4", r#"{"m": 1, "n": 4096, "k": 4096, "bits": 4, "group_size": 128}"#),
    layer("quantized", LARGE, ANY, "Llama 7B, eight sequences decoded together, weights in int4", r#"{"m": 8, "n": 4096, "k": 4096, "bits": 4, "group_size": 128}"#),
    layer("linformer", ALL, ANY, "eight heads of 64, their keys projected to 256", r#"{"batch": 1, "heads": 8, "seq": 1024, "head_dim": 64, "rank": 256}"#),
    layer("linformer", LARGE, ANY, "the same, eight times as long", r#"{"batch": 1, "heads": 8, "seq": 8192, "head_dim": 64, "rank": 256}"#),
    layer("performer", ALL, ANY, "eight heads of 64 through 256 features", r#"{"batch": 1, "heads": 8, "seq": 1024, "head_dim": 64, "features": 256}"#),
    layer("performer", LARGE, ANY, "the same, eight times as long", r#"{"batch": 1, "heads": 8, "seq": 8192, "head_dim": 64, "features": 256}"#),
];

impl Layer {
    /// The whole problem; `None` for text that the op refuses, which a test excludes.
    pub fn problem(&self, entry: &Entry) -> Option<Value> {
        let fields = serde_json::from_str(self.fields).ok()?;
        (entry.parse)(&fields).ok().map(|op| op.problem())
    }
}

impl Entry {
    /// Problems measured by `run`.
    pub fn grid(&self, size: Size, device: &DeviceInfo) -> Vec<Value> {
        let asked = |layer: &&Layer| layer.op == self.name && layer.sizes.contains(&size) && layer.on.contains(&device.kind);
        LAYERS.iter().filter(asked).filter_map(|layer| layer.problem(self)).collect()
    }
}

/// What a problem of the default grid is called; `None` for any other.
pub fn layer_name(op: &str, problem: &Value) -> Option<&'static str> {
    let entry = OPS.iter().find(|entry| entry.name == op)?;
    LAYERS.iter().find(|layer| layer.op == op && layer.problem(entry).as_ref() == Some(problem)).map(|layer| layer.name)
}
