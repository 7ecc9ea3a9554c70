//! The command line: commands, options and their help.

mod bench;
mod phantom;
mod pipeline;
mod predict;
mod serve;
mod store;
mod tracking;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use self::{
    bench::{BenchArgs, BenchPrecision, Benchmark},
    phantom::{DemoArgs, PhantomArgs},
    pipeline::{AuditArgs, CrossvalArgs, DagArgs, EvaluateArgs, InitArgs, ReproArgs},
    predict::{ExplainArgs, ExportArgs, ExportFormat, ModelArgs, Precision, PredictArgs, QuantizeArgs},
    serve::{HealthcheckArgs, ServeArgs},
    store::{Replay, StoreAction, StoreCommandArgs, VerifyArgs},
    tracking::{ModelsAction, ModelsArgs, RunsAction, RunsArgs},
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
    /// artifacts/crossval/crossval.json and, image by image, predictions.csv beside it. --gap trains as
    /// many models again, --controls three times as many.
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
  nephros predict --patients study/     also one answer for each folder, from all of its slices
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
  {\"path\":\"notes.png\",\"error\":\"not an image: …\",\"hint\":\"…\"}
--patients adds a line for each folder, after those of the images:
  {\"patient\":\"study/7\",\"label\":\"Tumor\",\"probability\":0.97,
   \"probabilities\":{\"Normal\":0.03,\"Tumor\":0.97},\"model\":\"3f6c…\",\"images\":61,\"left_out\":2,
   \"set\":[\"Tumor\"],\"refer\":false,\"reason\":null}
or, where none of its images gets a label, which is no failure:
  {\"patient\":\"study/8\",\"error\":\"none of the 4 images gets a label\",\"hint\":\"…\"}")]
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

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to write for
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod reference;
