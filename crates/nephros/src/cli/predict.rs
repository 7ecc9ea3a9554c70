//! Arguments of what a model is used for: `predict`, `quantize`, `export` and `explain`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nephros_core::{explain::Method, network, preprocessing::Normalization};

/// Which model, and how its input was scaled.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Model bundle (a folder), Keras model (.h5, .keras) or registered model, such as models:/NAME@champion
    #[arg(long, value_name = "BUNDLE|FILE.h5|models:/…")]
    pub model: Option<PathBuf>,
    /// Scaling of the pixels that a Keras model was trained with; a bundle knows its own
    #[arg(long, value_name = "SCALING", value_enum)]
    pub preprocessing: Option<Scaling>,
    /// Arithmetic of the convolutions; a bundle knows its default, a Keras model has f32 only
    #[arg(long, value_name = "PRECISION", value_enum)]
    pub precision: Option<Precision>,
}

/// How 0 to 255 pixel values become network input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scaling {
    /// BGR minus the ImageNet means, as Keras' own VGG16 weights expect
    Caffe,
    /// RGB in 0 to 1, standardised by the ImageNet mean and deviation
    Torchvision,
    /// RGB in 0 to 1
    Unit,
}

impl From<Scaling> for Normalization {
    fn from(scaling: Scaling) -> Self {
        match scaling {
            Scaling::Caffe => Self::Caffe,
            Scaling::Torchvision => Self::Torchvision,
            Scaling::Unit => Self::Unit,
        }
    }
}

/// Arithmetic of the convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floats
    F32,
    /// 8-bit whole numbers
    Int8,
}

impl From<Precision> for network::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Int8 => Self::Int8,
        }
    }
}

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// Images, and folders of images
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Model to use
    #[command(flatten)]
    pub model: ModelArgs,
    /// Name the nearest training slice, by the network's features, of so many patients
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub similar: usize,
    /// Answer for each folder as one patient too, from all of its own images that get a label
    ///
    /// All slices of a patient belong into one folder; a folder below it is another patient.
    #[arg(long)]
    pub patients: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `quantize`.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// Folder of class folders, or of images without classes, which give no AUROC
    #[arg(long, value_name = "DIR")]
    pub calibrate: PathBuf,
    /// Model bundle (a folder)
    #[arg(long, value_name = "BUNDLE")]
    pub model: Option<PathBuf>,
    /// Bundle to write; by default the model itself
    #[arg(long, value_name = "BUNDLE")]
    pub out: Option<PathBuf>,
    /// Largest share of hold-out labels that may change for 8 bits to become the default, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub tolerance: f64,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to write
    #[arg(long, value_enum)]
    pub format: ExportFormat,
    /// Model bundle (a folder) or Keras model (.h5, .keras)
    #[arg(long, value_name = "BUNDLE|FILE.h5")]
    pub model: Option<PathBuf>,
    /// Scaling of the pixels that a Keras model was trained with; a bundle knows its own
    #[arg(long, value_name = "SCALING", value_enum)]
    pub preprocessing: Option<Scaling>,
    /// File to write, or folder for mlflow; by default model.onnx, model.keras, model.h5,
    /// model.safetensors or mlflow-model in the current folder
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a model is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// ONNX file version 8, operators 13: onnxruntime, OpenVINO, TensorRT
    Onnx,
    /// The archive of Keras 3
    Keras,
    /// HDF5 that TensorFlow 2.12 and Keras 3 load and train further
    H5,
    /// The arrays alone, under torchvision's keys
    Safetensors,
    /// A folder with the flavors onnx, tensorflow and python_function, and the bundle
    Mlflow,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Images, and folders of images
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Model to use
    #[command(flatten)]
    pub model: ModelArgs,
    /// How to make the map
    #[arg(long, value_enum, default_value_t = ExplainMethod::Gradcam)]
    pub method: ExplainMethod,
    /// Class to explain; by default the predicted one
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// Folder to write NAME.METHOD.png into
    #[arg(long, value_name = "DIR", default_value = "explanations")]
    pub out: PathBuf,
    /// Folder of lesion masks, from `nephros phantom --masks`: says how much of a map lies inside
    #[arg(long, value_name = "DIR")]
    pub masks: Option<PathBuf>,
    /// Name the nearest training slice, by the network's features, of so many patients
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub similar: usize,
    /// Seed of the random regions, and of what LIME and Kernel SHAP hide
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// How a heat map is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExplainMethod {
    /// Grad-CAM: the last feature map, each channel by its mean gradient
    Gradcam,
    /// HiResCAM: the last feature map, each cell by its own gradient
    Hirescam,
    /// Fall of the log-odds while a grey square slides over the slice
    Occlusion,
    /// LIME: a linear model of superpixels shown or hidden
    Lime,
    /// Kernel SHAP: the Shapley values of superpixels
    Shap,
}

impl From<ExplainMethod> for Method {
    fn from(method: ExplainMethod) -> Self {
        match method {
            ExplainMethod::Gradcam => Self::GradCam,
            ExplainMethod::Hirescam => Self::HiResCam,
            ExplainMethod::Occlusion => Self::Occlusion,
            ExplainMethod::Lime => Self::Lime,
            ExplainMethod::Shap => Self::Shap,
        }
    }
}
