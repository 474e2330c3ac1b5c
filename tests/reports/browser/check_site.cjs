// Opens pages of a built site in a browser and prints what is found, as JSON.
// Usage: node check_site.cjs CHROMIUM SCREENSHOTS PAGE.html…
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

const [executable, folder, ...pages] = process.argv.slice(2);

const keyboard = async (page) => {
  // Tab leads to the skip link, and each further step to a visible element of the page.
  await page.keyboard.press("Tab");
  const first = await page.evaluate(() => document.activeElement.className);
  const seen = [];
  for (let step = 0; step < 25; step += 1) {
    await page.keyboard.press("Tab");
    seen.push(await page.evaluate(() => {
      const element = document.activeElement;
      const box = element.getBoundingClientRect();
      const outline = getComputedStyle(element).outlineStyle;
      return element === document.body || (box.width > 0 && box.height > 0 && outline !== "none");
    }));
  }
  return first === "skip" && seen.every(Boolean);
};

const sorting = async (page) => {
  // Enter on a header sorts its column, largest first; again, smallest first.
  const button = page.locator("thead th.number button:visible").first();
  if (await button.count() === 0) return null;
  const read = () => button.evaluate((element) => {
    const head = element.closest("th");
    const rows = [...head.closest("table").tBodies[0].rows];
    return rows.map((row) => row.cells[head.cellIndex].dataset.value).filter(Boolean).map(Number);
  });
  await button.focus();
  await page.keyboard.press("Enter");
  const falling = await read();
  await page.keyboard.press("Enter");
  const rising = await read();
  const ordered = (values, sign) => values.every((v, i) => !i || sign * (v - values[i - 1]) >= 0);
  return ordered(falling, -1) && ordered(rising, 1);
};

const opening = async (page) => {
  // On a narrow screen a row's button shows the rest of its values.
  const button = page.locator("button.more:visible").first();
  if (await button.count() === 0) return null;
  const cells = () => button.evaluate((element) => [...element.closest("tr").cells]
    .filter((cell) => getComputedStyle(cell).display !== "none").length);
  const before = await cells();
  await button.focus();
  await page.keyboard.press("Enter");
  return before === 2 && await cells() > 2;
};

const filtering = async (page) => {
  const field = page.locator(".filters input");
  if (await field.count() === 0) return null;
  const rows = () => page.locator("tbody tr:not([hidden])").count();
  await page.evaluate(() => { document.querySelector(".filters").open = true; });
  const before = await rows();
  await field.fill("no row has this text");
  const none = await rows();
  await field.fill("");
  return none === 0 && await rows() === before;
};

(async () => {
  const browser = await chromium.launch({ executablePath: executable, args: ["--no-sandbox"] });
  const found = [];
  for (const file of pages) {
    for (const width of [390, 1400]) {
      for (const colorScheme of ["light", "dark"]) {
        const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, bypassCSP: false });
        const page = await context.newPage();
        const messages = [], requests = [];
        page.on("console", (message) => messages.push(message.text()));
        page.on("pageerror", (error) => messages.push(String(error)));
        page.on("requestfailed", (request) => messages.push(`failed: ${request.url()}`));
        page.on("request", (request) => requests.push(request.url()));
        await page.goto(pathToFileURL(file).href);
        const nodes = await page.evaluate(() => {
          const walker = document.createTreeWalker(document, NodeFilter.SHOW_ELEMENT);
          let count = 0;
          while (walker.nextNode()) count += 1;
          return count;
        });
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        await page.evaluate(() => document.querySelectorAll("img").forEach((image) => { image.loading = "eager"; }));
        await page.waitForFunction(() => [...document.images].every((image) => image.complete));
        const broken = await page.evaluate(() => [...document.images].filter((image) => !image.naturalWidth).length);
        const name = `${path.basename(path.dirname(file))}-${path.basename(file, ".html")}`.slice(0, 80);
        await page.screenshot({ path: path.join(folder, `${name}-${width}-${colorScheme}.png`), fullPage: process.env.FULL_PAGE === "1" });
        const height = await page.evaluate(() => document.documentElement.scrollHeight);
        const violations = (await (async () => {
          await page.evaluate(fs.readFileSync(axe, "utf8"));
          return page.evaluate(() => window.axe.run(document, { preload: false }));
        })()).violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 150)).join(" | ")}`);
        found.push({
          page: file, width, colorScheme, messages, nodes, overflow, broken, height, violations,
          bytes: fs.statSync(file).size,
          outside: requests.filter((url) => !url.startsWith("file:") && !url.startsWith("data:")),
          keyboard: await keyboard(page),
          opening: await opening(page),
          sorting: await sorting(page),
          filtering: await filtering(page),
        });
        await context.close();
      }
    }
  }
  await browser.close();
  process.stdout.write(JSON.stringify(found));
})().catch((error) => { process.stderr.write(`${error.stack}\n`); process.exit(1); });
