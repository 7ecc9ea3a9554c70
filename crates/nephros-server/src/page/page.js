"use strict";

const $ = (id) => document.getElementById(id);
const TOKEN_KEY = "nephros-token";
// Patients of whom the nearest training slice is named.
const SIMILAR = 3;

// The image to classify: its bytes, the name shown, and the true class of a sample.
let image = null;
// A newer choice or a newer request makes an older answer stale.
let turn = 0;

function show(state) {
  for (const name of ["empty", "loading", "answer", "error"]) {
    $(name).hidden = name !== state;
  }
}

function fail(message, hint, wantsToken = false) {
  $("error-title").textContent = wantsToken ? "Access token needed" : "No result";
  $("error-message").textContent = sentence(message);
  $("error-hint").textContent = hint && !wantsToken ? sentence(hint) : "";
  $("token-form").hidden = !wantsToken;
  $("error").classList.toggle("asks", wantsToken);
  show("error");
  if (wantsToken) $("token").focus();
}

// The server writes its texts in lower case without a final period, as parts of log lines.
function sentence(text) {
  if (!text) return "";
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function percent(value) {
  if (value > 0 && value < 0.0005) return "below 0.1 %";
  if (value < 1 && value >= 0.9995) return "above 99.9 %";
  return (100 * value).toFixed(1) + " %";
}

function choose(blob, name, truth) {
  turn += 1;
  image = { blob, name, truth };
  $("chosen").textContent = name;
  $("predict").disabled = false;
  for (const button of $("sample-list").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", "false");
  }
  show("empty");
  preview(blob, name);
}

function preview(blob, name) {
  const picture = $("preview");
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.alt = "Preview of " + name;
  picture.onload = () => framed(true);
  // A format that the server reads and the browser does not, such as TIFF.
  picture.onerror = () => framed(false);
  picture.src = URL.createObjectURL(blob);
}

function framed(drawn) {
  $("drop").classList.add("filled");
  $("preview").hidden = !drawn;
  $("prompt").hidden = drawn;
  if (!drawn) {
    $("prompt").querySelector("strong").textContent = "No preview";
    const rest = $("prompt").querySelector("span");
    rest.textContent = "This browser cannot draw the file. The server may still read it.";
    rest.classList.remove("wide-only");
  }
}

async function predict() {
  if (!image) return;
  turn += 1;
  const mine = turn;
  const asked = image;
  $("predict").disabled = true;
  show("loading");
  bringIntoView();
  const outcome = await ask(asked.blob);
  if (mine !== turn) return;
  $("predict").disabled = false;
  if (outcome.error) {
    fail(outcome.error.message, outcome.error.hint, outcome.error.code === "unauthorized");
  } else {
    answer(outcome, asked.truth);
  }
  bringIntoView();
}

// The prediction, or `{error}` as the server or this page words it.
async function ask(blob) {
  const headers = { "Content-Type": "application/octet-stream" };
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (token) headers.Authorization = "Bearer " + token;
  let response;
  try {
    response = await fetch("api/v1/predictions?similar=" + SIMILAR, { method: "POST", headers, body: blob });
  } catch {
    return { error: { message: "the server cannot be reached", hint: "check the connection and press Predict again" } };
  }
  const unusable = { error: { message: "the server answered with status " + response.status } };
  const body = await response.json().catch(() => unusable);
  if (body.error && body.error.code === "unauthorized" && token) {
    sessionStorage.removeItem(TOKEN_KEY);
    body.error.message = "the token was not accepted";
  }
  return response.ok || body.error ? body : unusable;
}

function answer(result, truth) {
  const reasons = result.reasons || [];
  const refused = reasons.some((reason) => reason.code !== "near_copy");
  const similar = refused ? [] : result.similar || [];
  $("caption").textContent = refused ? "The model does not judge this image" : "Most probable class";
  $("label").textContent = refused ? "No label" : result.label;
  $("probability").hidden = refused;
  $("probability").textContent = "Probability " + percent(result.probability);
  $("classes").hidden = refused;
  $("reasons").hidden = reasons.length === 0;
  $("reasons").textContent = sentence(reasons.map((reason) => reason.sentence).join("; "));
  $("refer").hidden = !result.refer || refused;
  $("refer").textContent = result.refer ? "Refer to a radiologist: " + result.refer + "." : "";
  $("truth").hidden = !truth;
  $("truth").textContent = truth ? "The sample's own label is " + truth + "." : "";
  $("model").textContent = result.model;
  $("time").textContent = (result.milliseconds < 10 ? result.milliseconds.toFixed(1) : Math.round(result.milliseconds)) + " ms";
  $("classes").replaceChildren(
    ...Object.entries(result.probabilities).map(([label, value]) => classRow(label, value, label === result.label)),
  );
  $("similar").hidden = similar.length === 0;
  $("similar-list").replaceChildren(...similar.map(similarItem));
  show("answer");
}

function similarItem(slice) {
  const item = document.createElement("li");
  const name = document.createElement("strong");
  name.textContent = slice.class;
  const whose = slice.patient ? "patient " + slice.patient : slice.group ? "group " + slice.group : "";
  const facts = document.createElement("span");
  facts.textContent = [whose, "distance " + slice.distance.toFixed(2)].filter(Boolean).join(", ");
  const path = document.createElement("span");
  path.className = "path";
  path.textContent = slice.path;
  item.append(name, facts, path);
  return item;
}

function classRow(label, value, top) {
  const row = document.createElement("div");
  row.className = top ? "class top" : "class";
  const term = document.createElement("dt");
  term.textContent = label;
  const number = document.createElement("dd");
  number.textContent = percent(value);
  const track = document.createElement("dd");
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  const fill = document.createElement("span");
  fill.className = "fill";
  track.append(fill);
  row.append(term, number, track);
  requestAnimationFrame(() => requestAnimationFrame(() => { fill.style.width = 100 * value + "%"; }));
  return row;
}

// On a phone the result lies below the fold.
function bringIntoView() {
  if (matchMedia("(max-width: 760px)").matches) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("result-title").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }
}

// By what the server says of itself.
const RECORDS = {
  nothing: "Neither the image nor what is predicted is recorded.",
  predictions: "What is predicted is recorded with a hash of the image; the image is not kept.",
  images: "What is predicted is recorded, and the image is kept with it, encrypted.",
};

async function loadStatus() {
  try {
    const health = await (await fetch("health")).json();
    $("status").dataset.state = health.model ? "ready" : "empty";
    $("status-text").textContent = health.model ? "Model " + health.model : "No model loaded";
    $("status").title = health.model || "";
    $("records").textContent = RECORDS[health.records];
    $("refused").hidden = !health.refused;
    $("notice").hidden = !health.notice;
    $("notice").textContent = health.notice ? sentence(health.notice) : "";
    $("refused").textContent = health.refused ? "The model trained last is not served. " + sentence(health.refused) : "";
  } catch {
    $("status").dataset.state = "down";
    $("status-text").textContent = "Server not reached";
  }
}

async function loadSamples() {
  const samples = await fetch("samples").then((response) => response.json()).catch(() => []);
  $("samples").hidden = samples.length === 0;
  $("sample-list").replaceChildren(...samples.map(sampleItem));
}

function sampleItem(sample) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  const picture = document.createElement("img");
  picture.src = sample.url;
  picture.alt = "";
  picture.loading = "lazy";
  const name = document.createElement("span");
  name.textContent = sample.name;
  button.append(picture, name);
  button.addEventListener("click", () => chooseSample(sample, button));
  item.append(button);
  return item;
}

async function chooseSample(sample, button) {
  try {
    const response = await fetch(sample.url);
    if (!response.ok) throw new Error(response.statusText);
    choose(await response.blob(), sample.name, sample.label);
    button.setAttribute("aria-pressed", "true");
  } catch {
    fail("the sample cannot be loaded", "check the connection and click it again");
  }
}

$("file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) choose(file, file.name);
});
$("predict").addEventListener("click", predict);
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, $("token").value.trim());
  $("token").value = "";
  predict();
});

// A file dropped beside the field would otherwise replace the page.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => event.preventDefault());
}
document.addEventListener("dragover", () => $("drop").classList.add("over"));
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  $("drop").classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) choose(file, file.name);
});

loadStatus();
loadSamples();
