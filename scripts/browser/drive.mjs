// Drives the page in a real Chromium as a user would, and prints one JSON line a step.
//
//   node drive.mjs URL MODULES CHROMIUM IMAGE BROKEN_IMAGE TOKEN [SCREENSHOTS]
//
// MODULES is the folder whose node_modules holds playwright-core. TOKEN is "" for a server without one.
// The steps are checked by crates/nephros-server/tests/browser.rs.

import { createRequire } from "node:module";
import { join } from "node:path";

const [url, modules, executablePath, image, broken, token, screenshots] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "package.json"))("playwright-core");

// Without these, Chromium looks for hosts of its own at every start.
const args = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
// Chromium refuses its sandbox to root, which containers usually run as.
if (process.getuid() === 0) args.push("--no-sandbox");

function report(step, facts) {
  console.log(JSON.stringify({ step, ...facts }));
}

const browser = await chromium.launch({ executablePath, args });
try {
  await drive(await browser.newContext({ viewport: { width: 1280, height: 900 } }), "desktop");
  await drive(
    await browser.newContext({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true }),
    "phone",
  );
  await keyboard(await browser.newContext({ colorScheme: "dark", viewport: { width: 1280, height: 900 } }));
} finally {
  await browser.close();
}

async function open(context, name) {
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const foreign = [];
  const complaints = [];
  page.on("request", (request) => {
    const to = new URL(request.url());
    if (to.origin !== new URL(url).origin && !["blob:", "data:"].includes(to.protocol)) foreign.push(request.url());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // Chromium itself reports each answer of 400 and above; the page shows those.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) complaints.push(message.text());
  });
  await page.goto(url);
  await page.locator("#status:not([data-state=checking])").waitFor();
  return { page, foreign, complaints, name };
}

async function shot({ page, name }, state) {
  if (screenshots) await page.screenshot({ path: join(screenshots, `${name}-${state}.png`), fullPage: true });
}

async function settled(page) {
  await page.locator("#answer:not([hidden]), #error:not([hidden])").waitFor();
  // The bars grow for a third of a second.
  await page.waitForTimeout(500);
}

async function facts(page) {
  const text = async (id) => ((await page.locator(id).isVisible()) ? page.locator(id).innerText() : null);
  const texts = async (items) => {
    const found = await page.locator(items).all();
    const shown = await Promise.all(found.map(async (item) => ((await item.isVisible()) ? item.innerText() : null)));
    return shown.filter((item) => item !== null);
  };
  return {
    caption: await text("#caption"),
    label: await text("#label"),
    probability: await text("#probability"),
    truth: await text("#truth"),
    model: await text("#model"),
    error: await text("#error-message"),
    hint: await text("#error-hint"),
    reasons: await text("#reasons"),
    rows: await texts(".class"),
    similar: await texts("#similar-list li"),
    overflow: await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth),
  };
}

async function drive(context, name) {
  const tab = await open(context, name);
  const { page } = tab;
  await shot(tab, "empty");
  report("open", {
    name,
    title: await page.title(),
    status: await page.locator("#status").innerText(),
    records: await page.locator("#records").innerText(),
    disabled: await page.locator("#predict").isDisabled(),
    samples: await page.locator("#sample-list button").count(),
    overflow: (await facts(page)).overflow,
  });

  await page.locator("#file").setInputFiles(image);
  await page.locator("#preview").waitFor();
  report("chosen", {
    name,
    chosen: await page.locator("#chosen").innerText(),
    drawn: await page.locator("#preview").evaluate((picture) => picture.decode().then(() => picture.naturalWidth)),
  });
  await page.locator("#predict").click();
  if (token) {
    await page.locator("#token-form").waitFor();
    await shot(tab, "token");
    await page.locator("#token").fill("wrong token");
    await page.keyboard.press("Enter");
    await page.getByText("The token was not accepted.").waitFor();
    await page.locator("#token").fill(token);
    await page.keyboard.press("Enter");
    await page.locator("#answer").waitFor();
  }
  await settled(page);
  await shot(tab, "result");
  report("result", { name, ...(await facts(page)) });

  await page.locator("#file").setInputFiles(broken);
  await page.locator("#predict").click();
  await page.locator("#error").waitFor();
  await settled(page);
  await shot(tab, "error");
  report("broken", { name, ...(await facts(page)) });

  if (await page.locator("#sample-list button").count()) {
    await page.locator("#sample-list button").first().click();
    await page.locator("#empty").waitFor();
    await page.locator("#predict").click();
    await settled(page);
    await shot(tab, "sample");
    report("sample", { name, ...(await facts(page)) });
    await page.locator("#sample-list button").last().click();
    await page.locator("#empty").waitFor();
    await page.locator("#predict").click();
    await settled(page);
    await shot(tab, "refused");
    report("refused", { name, ...(await facts(page)) });
  }
  report("closed", { name, foreign: tab.foreign, complaints: tab.complaints });
  await context.close();
}

// From the top of the page to a result without a pointer.
async function keyboard(context) {
  const tab = await open(context, "dark");
  const { page } = tab;
  await shot(tab, "empty");
  // Keys go to the page in front, and another context may still be closing.
  await page.bringToFront();
  await page.keyboard.press("Tab");
  const first = await page.evaluate(() => document.activeElement.id);
  const chooser = page.waitForEvent("filechooser");
  await page.keyboard.press("Space");
  await (await chooser).setFiles(image);
  await page.locator("#preview").waitFor();
  await page.keyboard.press("Tab");
  const second = await page.evaluate(() => document.activeElement.id);
  await page.keyboard.press("Enter");
  if (token) {
    await page.locator("#token").fill(token);
    await page.keyboard.press("Enter");
    await page.locator("#answer").waitFor();
  }
  await settled(page);
  await shot(tab, "result");
  report("keyboard", { first, second, ...(await facts(page)) });
  await context.close();
}
