//! The command line: commands, options and their help.

pub mod store;

use std::path::PathBuf;

use self::store::{StoreCommandArgs, VerifyArgs};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use nephros_conv::Isa;
use nephros_core::{explain::Method, network, preprocessing::Normalization};
use nephros_train::{
    controls::Checks,
    phantom::{self, PhantomClass},
};

/// Classify kidney CT slices: ingest, train, evaluate, predict and serve.
#[derive(Debug, Parser)]
#[command(
    name = "nephros",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  nephros demo                          try everything on a drawn cohort
  nephros init kidneys && cd kidneys    start a project
  nephros run                           ingest, prepare, train and evaluate
  nephros predict scans/                classify every image of a folder
  nephros serve                         the web page and the REST service

Exit status: 0 done, 1 the work failed, 2 usage or configuration, 130 stopped by Ctrl-C."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where data comes from and results go; relative paths start from the current folder
    #[arg(long, global = true, value_name = "FILE", default_value = "config/config.yaml")]
    pub config: PathBuf,
    /// How to train
    #[arg(long, global = true, value_name = "FILE", default_value = "params.yaml")]
    pub params: PathBuf,
    /// Log more: -v for details, -vv for everything
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Log warnings and errors only, and show no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Form of the log on stderr and in logs/running_logs.log
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `[2025-10-25 10:30:15,123: INFO: common]: Configuration loaded successfully`
    Text,
    /// One JSON object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a project: configuration, parameters, .gitignore and README
    ///
    /// Nothing is overwritten: in an existing project only what is missing is added.
    #[command(after_help = "Examples:
  nephros init              in the current folder
  nephros init kidneys      in a new folder")]
    Init(InitArgs),
    /// Fetch, check and unpack the images, and write the manifest
    #[command(after_help = "Examples:
  nephros ingest                                the source named in config/config.yaml
  nephros --config other/config.yaml ingest     another configuration")]
    Ingest,
    /// Find images that are likely one patient's, and say what a random split would leak
    ///
    /// Looks for exact duplicates, near duplicates, slices that resemble each other and adjacent file
    /// numbers, and joins them into groups. A CSV of patients beside the class folders is used. Groups
    /// are written as a CSV that `patients_file` in config/config.yaml takes, corrected or as it is.
    /// Files that cannot be decoded are listed.
    ///
    /// Pictures are compared by their pixels at 64x64 and by a perceptual hash. With --model, pictures
    /// that nearly resemble each other are joined too where the model's features agree, in standard
    /// deviations over the audited images, more than those of what cannot be one patient's.
    #[command(after_help = "Examples:
  nephros audit scans/
  nephros audit scans/ --model artifacts/training/bundle
  nephros audit scans.zip --out groups.csv
  nephros audit artifacts/data_ingestion/manifest.csv --json

The line of --json:
  {\"images\":1152,\"exact_duplicates\":0,\"groups\":41,\"largest_group\":70,\"conflicts\":0,
   \"groups_file\":\"artifacts/audit/groups.csv\"}
exact_duplicates are the images whose pixels an earlier one has; conflicts are the groups that hold
several classes, several known patients or several of the folders train, validation and test.")]
    Audit(AuditArgs),
    /// Load the pretrained network and write the base models
    #[command(after_help = "Examples:
  nephros prepare
  nephros -v prepare        say where each weight comes from")]
    Prepare,
    /// Train, and write the model bundle and model.h5
    ///
    /// An interrupted training goes on from its last checkpoint.
    #[command(after_help = "Examples:
  nephros train
  nephros --params fast.yaml train      other parameters")]
    Train,
    /// Score the trained model on the test images, and write scores.json
    ///
    /// The gate says whether the figures can be believed. It refuses a model whose accuracy may be
    /// that of always naming the larger class, one that names one class only, figures that
    /// contradict each other, and a split in which test and training share a patient. The verdict
    /// is recorded in the bundle, and the exit status is 0 whatever it is.
    ///
    /// Beside the scores stands always what the five nearest training images on raw pixels say. --gap
    /// and --controls train the recipe of the model again, and add to scores.json and the report; what
    /// they left before is gone after an evaluation without them. The main figures stay as they are.
    #[command(after_help = "Examples:
  nephros evaluate
  nephros evaluate --gap --controls
  nephros -q evaluate && cat scores.json")]
    Evaluate(EvaluateArgs),
    /// Score every image once, by a model that never saw its patient
    ///
    /// Trains one model a fold with the parameters of params.yaml, and writes
    /// artifacts/crossval/crossval.json. --gap trains as many models again, --controls three times as
    /// many.
    #[command(after_help = "Examples:
  nephros crossval --folds 5
  nephros crossval --folds 5 --gap --controls
  nephros crossval --folds 5 --json")]
    Crossval(CrossvalArgs),
    /// Run all four stages in order: ingest, prepare, train, evaluate
    ///
    /// Where there is a dvc.yaml this is `nephros repro`: a stage that has nothing new to read is left
    /// out. With --config or --params, and without a dvc.yaml, all four run.
    #[command(after_help = "Examples:
  nephros run
  nephros --log-format json run 2> run.jsonl")]
    Run,
    /// Run the stages of dvc.yaml that have changed, and those after them
    ///
    /// A stage has changed when its command, something that it reads or something that it left is not
    /// what dvc.lock says. If the same was run before, its results are taken from the cache. dvc.lock
    /// and .dvc/cache are DVC's own: `dvc status`, `dvc push` and `dvc metrics show` go on from there.
    /// Where there is no .dvc yet, it is made as `dvc init` does.
    ///
    /// In a command of a stage, `nephros` is this program.
    #[command(after_help = "Examples:
  nephros repro
  nephros repro training       one stage and all that it needs
  nephros repro --dry          say what would run
  nephros repro --force        run everything again")]
    Repro(ReproArgs),
    /// Say which stages of dvc.yaml have changed, and why
    ///
    /// With -q nothing is printed, and the exit status is 1 if a stage has changed.
    #[command(after_help = "Examples:
  nephros status
  nephros -q status || nephros repro")]
    Status,
    /// Show which stage of dvc.yaml needs which
    #[command(after_help = "Examples:
  nephros dag
  nephros dag --dot | dot -Tsvg > dag.svg")]
    Dag(DagArgs),
    /// Classify images
    ///
    /// Folders are walked. Results come in the order of the input. A file that cannot be read is
    /// reported, every other file is still classified, and the exit status is 1.
    ///
    /// The model is, in order: --model, artifacts/training/bundle, model/.
    #[command(after_help = "Examples:
  nephros predict slice.png
  nephros predict scans/ --json > predictions.jsonl
  nephros predict slice.png --similar 3
  nephros predict --model model.h5 --preprocessing unit slice.jpg

A line of --json:
  {\"path\":\"slice.png\",\"label\":\"Tumor\",\"probability\":0.93,
   \"probabilities\":{\"Normal\":0.07,\"Tumor\":0.93},\"model\":\"3f6c…\",\"milliseconds\":11.2,
   \"set\":[\"Tumor\"],\"refer\":false,\"reason\":null}
The last three are there where the bundle knows its error rate; with refer, a radiologist has to look.
A bundle with an input gate adds \"reasons\":[{\"code\":\"not_ct\",\"sentence\":\"…\"}], empty for most.
--similar 1 adds the training slice that is nearest by the network's features, which never counts
for the label; distances are in standard deviations, and patients are numbered within the bundle:
  \"similar\":[{\"path\":\"Tumor/7.jpg\",\"class\":\"Tumor\",\"patient\":3,\"distance\":0.41}]
or, for a file that cannot be read:
  {\"path\":\"notes.png\",\"error\":\"not an image: …\",\"hint\":\"…\"}")]
    Predict(PredictArgs),
    /// Add 8-bit weights to a model bundle, and measure what they change
    ///
    /// The images are divided: up to half of them, at most 128, calibrate the ranges of the 8-bit maps; on
    /// the others the 8-bit model is compared with the f32 model. Images are divided by patient where a
    /// patients.csv in the folder or the manifest that `ingest` wrote tells the patients, and by image
    /// otherwise. Nothing is drawn at random: the same images give the same bundle. Use training images.
    ///
    /// The bundle gets both files of 8-bit weights and, in bundle.json, the figures. The 8-bit model becomes
    /// the default of predict and serve when no more labels change than --tolerance allows. Otherwise it is
    /// stored, --precision int8 selects it, and the exit status is 1, so that a script does not go on as if
    /// it served 8 bits. Files that cannot be read are named and left out.
    ///
    /// Quantizing again replaces the 8-bit weights, training again removes them. Versions of nephros without
    /// 8-bit weights refuse such a bundle by its format version. The model is found as for predict.
    #[command(after_help = "Examples:
  nephros quantize --calibrate artifacts/data_ingestion/kidney-ct-scan-image
  nephros quantize --model model --calibrate train --out model-int8 --json
  nephros quantize --calibrate train --tolerance 0.01     allow one label in a hundred to change")]
    Quantize(QuantizeArgs),
    /// Write a model for another program: ONNX, Keras, safetensors, or a folder for MLflow
    ///
    /// Files are of the network itself, in f32: images go in resized and scaled as the message and
    /// the file say, and probabilities come out before calibration and abstention. Each file names
    /// the labels, the preprocessing and the temperature: docs/formats.md.
    ///
    /// A file that is there is replaced, and so is a folder that holds an MLflow model. The model is
    /// found as for predict.
    #[command(after_help = "Examples:
  nephros export --format onnx
  nephros export --format keras --model bundle --out kidney.keras
  nephros export --format onnx --model model.h5 --preprocessing unit
  nephros export --format mlflow --out kidney-model --json

The line of --json; temperature is null where the model has no calibration:
  {\"path\":\"model.onnx\",\"format\":\"onnx\",\"model\":\"vgg16-3f6c…\",\"bytes\":59067390,
   \"labels\":[\"Normal\",\"Tumor\"],\"preprocessing\":{\"image_size\":[224,224,3],…},\"temperature\":1.4}")]
    Export(ExportArgs),
    /// Show where a model looks, and check the map
    ///
    /// Writes a PNG for each image: the slice, the heat map over it with a colour bar, and whether
    /// the map is faithful. For that the hottest tenth is hidden, and 20 random regions of the same
    /// size and shape: the map is faithful if hiding the hot one lowers the log-odds of the class
    /// more than hiding 19 of 20 random ones does.
    ///
    /// Folders are searched, and a file that cannot be read is told, as by predict.
    #[command(after_help = "Examples:
  nephros explain slice.png
  nephros explain scans/ --method occlusion --out maps --json
  nephros explain slice.png --class Normal --method shap
  nephros explain slice.png --similar 3
  nephros explain cohort/Tumor --class Tumor --masks cohort/masks

A line of --json, with falls of the log-odds; null where no check could be made:
  {\"path\":\"slice.png\",\"label\":\"Tumor\",\"class\":\"Tumor\",\"method\":\"gradcam\",
   \"overlay\":\"explanations/slice.gradcam.png\",
   \"faithful\":true,\"drop_hot\":3.2,\"drop_random\":0.4,\"milliseconds\":85.2}
--similar K adds the key \"similar\", as for predict.")]
    Explain(ExplainArgs),
    /// Serve the web page and the REST interface
    ///
    /// A model whose evaluation failed the gate is not served without --force. One that was never
    /// evaluated is, with a warning. After POST /train a model that fails leaves the one before in
    /// its place, or none.
    ///
    /// Any address but loopback needs a token in NEPHROS_TOKEN, which clients send as
    /// `Authorization: Bearer …`, or --allow-unauthenticated.
    #[command(after_help = "Examples:
  nephros serve
  NEPHROS_TOKEN=… nephros serve --host 0.0.0.0 --port 8080
  nephros serve --model model/model.h5")]
    Serve(ServeArgs),
    /// Draw a cohort of abdominal CT slices, with the patient of each slice
    ///
    /// The same seed gives the same files. Patients differ in anatomy, size and noise.
    #[command(after_help = "Examples:
  nephros phantom --patients 40 --slices 12 --seed 7 --out cohort
  nephros phantom --patients 8 --slices 4 --seed 1 --out four --classes normal,tumor,cyst,stone")]
    Phantom(PhantomArgs),
    /// Train on a drawn cohort, show the scores on unseen patients, and serve the result
    ///
    /// Needs no data, no network and at most four minutes on two cores.
    #[command(after_help = "Examples:
  nephros demo
  nephros demo --dir /tmp/demo --no-serve")]
    Demo(DemoArgs),
    /// Time the engine on this machine, beside the recorded results of another
    ///
    /// Weights and input are what scripts/bench-peers exports; features.f32 and probabilities.f32
    /// beside the input are compared with where they are there. ready_ms is the time from the closed file
    /// of weights to a network that can run, peak_mb the largest resident memory of the whole process. With
    /// --precision int8, f32 weights are calibrated first, which counts in both; 8-bit weights that `bench
    /// quantize` or `quantize` wrote are only loaded, as by a user of a quantized bundle.
    #[command(after_help = "Examples:
  nephros bench forward --weights target/peers/weights.safetensors --input target/peers/input.f32
  nephros bench forward --weights w.safetensors --input x.f32 --batch 8 --isa avx2 --json
  nephros bench quantize --weights w.safetensors --input x.f32 --out w.int8.safetensors
  nephros bench forward --precision int8 --weights w.int8.safetensors --input x.f32")]
    Bench(BenchArgs),
    /// Look at recorded runs, and send them to an MLflow server
    ///
    /// Every training is recorded in mlflow.db, with files in mlruns/, where `mlflow ui` shows it too. With
    /// MLFLOW_TRACKING_URI set to a server's address the server gets it while it happens; what a server
    /// missed because it was down, `sync` sends. MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN, or
    /// ~/.mlflow/credentials log in; MLFLOW_EXPERIMENT_NAME names the experiment.
    #[command(after_help = "Examples:
  nephros runs list
  nephros runs show 3f6c                 a run by the start of its id
  nephros runs compare 3f6c a01b
  MLFLOW_TRACKING_URI=http://127.0.0.1:5000 nephros runs sync")]
    Runs(RunsArgs),
    /// Versions of registered models: list, promote, demote, history
    ///
    /// `nephros evaluate` registers a model that passes the gate. The registry is that of the server in
    /// MLFLOW_TRACKING_URI or, without one, of mlflow.db. Wherever a command takes --model, it takes
    /// models:/NAME@champion, models:/NAME/3, models:/NAME/Production and runs:/RUN/model.
    #[command(after_help = "Examples:
  nephros models list
  nephros models promote 3                       version 3 is champion now
  nephros models promote 4 --alias challenger
  nephros models history
  nephros predict --model models:/VGG16Model@champion slice.png")]
    Models(ModelsArgs),
    /// Check that the log of predictions is as it was recorded, and repeat predictions
    ///
    /// Goes through the whole log and names the first record that was changed, removed, moved or inserted.
    /// With the master key, kept images are decrypted and compared with what was predicted on. The end of
    /// the log can be cut without a trace in it: --checkpoint compares it with a checkpoint kept elsewhere.
    ///
    /// Where images were kept and the same model is at hand, predictions are made again and have to come
    /// out bit for bit. The exit status is 1 if anything is wrong.
    #[command(after_help = "Examples:
  nephros verify
  nephros verify --checkpoint /mnt/audit/nephros.checkpoint --json
  nephros verify --receipt 5f0c…                 repeat one prediction
  nephros verify --store postgres://audit@db/nephros --replay 0

The line of --json; broken is null where nothing is wrong:
  {\"entries\":1203,\"predictions\":1180,\"erased\":12,\"images\":40,\"decrypted\":40,
   \"broken\":{\"position\":17,\"id\":\"5f0c…\",\"fault\":\"changed\"},\"checkpoint\":\"nephros-receipts …\",
   \"replay\":{\"replayed\":10,\"differing\":[],\"untried\":25}}")]
    Verify(VerifyArgs),
    /// Export, erase, prune, back up and restore what is known of predictions; rotate the master key
    ///
    /// An erasure deletes details, images and keys. The log keeps that there was a prediction, gets an
    /// entry about the erasure, and still verifies. docs/guides/store.md tells more.
    #[command(after_help = "Examples:
  nephros store export patient-17 --out patient-17.zip
  nephros store erase --subject patient-17
  nephros store prune --image-days 90
  nephros store rotate --new-key-file store/master-2027.key
  nephros store backup /mnt/backup/receipts.db
  nephros store restore /mnt/backup/receipts.db")]
    Store(StoreCommandArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  nephros completions bash > /etc/bash_completion.d/nephros
  nephros completions zsh > ~/.zfunc/_nephros
  nephros completions fish > ~/.config/fish/completions/nephros.fish")]
    Completions(CompletionsArgs),
    /// Ask a server on this machine whether it is up; for containers, which have no other client
    #[command(hide = true)]
    Healthcheck(HealthcheckArgs),
}

/// Arguments of `repro`.
#[derive(Debug, Args)]
pub struct ReproArgs {
    /// Stage to bring up to date, with all that it needs; by default all
    #[arg(value_name = "STAGE")]
    pub stage: Option<String>,
    /// Run stages though nothing has changed
    #[arg(long)]
    pub force: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry: bool,
}

/// Arguments of `dag`.
#[derive(Debug, Args)]
pub struct DagArgs {
    /// Print a flowchart for Mermaid
    #[arg(long, conflicts_with = "dot")]
    pub mermaid: bool,
    /// Print a graph for Graphviz
    #[arg(long)]
    pub dot: bool,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Folder of images, zip of one, or the manifest.csv of `nephros ingest`
    #[arg(value_name = "DIR|FILE.zip|manifest.csv")]
    pub path: PathBuf,
    /// CSV of groups to write
    #[arg(long, value_name = "FILE", default_value = "artifacts/audit/groups.csv")]
    pub out: PathBuf,
    /// Model bundle (a folder), Keras model (.h5) or registered model whose features are further evidence
    #[arg(long, value_name = "BUNDLE|FILE.h5|models:/…")]
    pub model: Option<PathBuf>,
    /// Print one JSON line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Port of the server
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
}

/// What to ask beside the scores.
#[derive(Debug, Clone, Copy, Args)]
pub struct CheckArgs {
    /// Score the same recipe on a random split of the same images too, and state the difference
    #[arg(long)]
    pub gap: bool,
    /// Train on shuffled labels, on images whose body is hidden, and on images in which the middle of
    /// the body is hidden: what these score above chance is leakage or a shortcut
    #[arg(long)]
    pub controls: bool,
}

impl From<CheckArgs> for Checks {
    fn from(CheckArgs { gap, controls }: CheckArgs) -> Self {
        Self { gap, controls }
    }
}

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// What to ask beside the scores
    #[command(flatten)]
    pub checks: CheckArgs,
}

/// Arguments of `crossval`.
#[derive(Debug, Args)]
pub struct CrossvalArgs {
    /// Number of folds
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub folds: usize,
    /// What to ask beside the scores
    #[command(flatten)]
    pub checks: CheckArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder of the project
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
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

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Model to use
    #[command(flatten)]
    pub model: ModelArgs,
    /// Serve other machines without a token; logged as a warning at every start
    #[arg(long)]
    pub allow_unauthenticated: bool,
    /// Serve /metrics on this port instead, of the same host; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Folder whose images and zip files clients may have predicted as batches
    #[arg(long, value_name = "DIR")]
    pub batch_root: Option<PathBuf>,
    /// Record no predictions; without it each has a receipt in the database of DATABASE_URL or config.yaml
    #[arg(long)]
    pub no_receipts: bool,
    /// Serve a model that failed the gate of its evaluation, now and after POST /train; its bundle
    /// records that
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `phantom`.
#[derive(Debug, Args)]
pub struct PhantomArgs {
    /// Number of patients
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub patients: u32,
    /// Slices of each patient
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slices: u32,
    /// Seed of the drawing
    #[arg(long, value_name = "S")]
    pub seed: u64,
    /// Folder to write into
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Classes to draw, separated by commas
    #[arg(long, value_name = "CLASS", value_enum, value_delimiter = ',', default_value = "normal,tumor")]
    pub classes: Vec<Finding>,
    /// Rows and columns of an image
    #[arg(long, value_name = "PIXELS", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(64..=2048))]
    pub size: u32,
    /// Image format
    #[arg(long, value_enum, default_value_t = ImageFormat::Jpeg)]
    pub format: ImageFormat,
    /// Write the lesions' masks too, as masks/CLASS/NAME.png
    #[arg(long)]
    pub masks: bool,
}

/// What is drawn in the kidneys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Finding {
    /// Healthy kidneys
    Normal,
    /// An enhancing mass
    Tumor,
    /// A fluid-filled cyst
    Cyst,
    /// A stone
    Stone,
}

impl From<Finding> for PhantomClass {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Normal => Self::Normal,
            Finding::Tumor => Self::Tumor,
            Finding::Cyst => Self::Cyst,
            Finding::Stone => Self::Stone,
        }
    }
}

/// Image format of a drawn cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImageFormat {
    /// JPEG
    Jpeg,
    /// PNG
    Png,
}

impl From<ImageFormat> for phantom::ImageFormat {
    fn from(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Jpeg => Self::Jpeg,
            ImageFormat::Png => Self::Png,
        }
    }
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder of the demo project
    #[arg(long, value_name = "DIR", default_value = "nephros-demo")]
    pub dir: PathBuf,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Stop after the scores
    #[arg(long)]
    pub no_serve: bool,
}

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

/// Arithmetic of the convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floats
    F32,
    /// 8-bit whole numbers
    Int8,
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

impl From<Precision> for network::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Int8 => Self::Int8,
        }
    }
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

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// What to do
    #[command(subcommand)]
    pub action: RunsAction,
}

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub enum RunsAction {
    /// All runs, the latest first
    List {
        /// Runs of this experiment only
        #[arg(long, value_name = "NAME")]
        experiment: Option<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// All that was recorded of a run
    Show {
        /// Id of the run, or the start of it
        run: String,
        /// Print one JSON line, with every value of every metric
        #[arg(long)]
        json: bool,
    },
    /// The parameters and metrics that differ
    Compare {
        /// Ids of the runs, or their starts
        #[arg(required = true, num_args = 2..)]
        runs: Vec<String>,
        /// Print one JSON line
        #[arg(long)]
        json: bool,
    },
    /// Send what the server in MLFLOW_TRACKING_URI does not have
    Sync {
        /// Ids of the runs, or their starts; by default all
        runs: Vec<String>,
        /// Send them as new runs, for those that were deleted on the server
        #[arg(long, requires = "runs")]
        anew: bool,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Registered model; by default registered_model_name of config/config.yaml, and all for `list`
    #[arg(long, global = true, value_name = "NAME")]
    pub name: Option<String>,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub action: ModelsAction,
}

/// What can be done with registered models.
#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// All versions
    List,
    /// Register the model of the last training
    Register {
        /// Register a model that failed the gate; version and bundle record that
        #[arg(long)]
        force: bool,
    },
    /// Give a version an alias: champion, if the gate of its evaluation lets it
    Promote {
        /// Number of the version
        version: u32,
        /// The alias
        #[arg(long, value_name = "ALIAS", default_value = "champion")]
        alias: String,
        /// Promote a model that failed the gate; version and bundle record that
        #[arg(long)]
        force: bool,
    },
    /// Take an alias from the version that has it
    Demote {
        /// The alias
        #[arg(long, value_name = "ALIAS", default_value = "champion")]
        alias: String,
    },
    /// What became of the versions, the latest last
    History,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to write for
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod reference;
