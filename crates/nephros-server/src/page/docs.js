"use strict";

// Draws the OpenAPI document. Everything is set as text: nothing of the document is run as markup.

function element(name, text, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Lines of a description, with `code` as such.
function prose(text) {
  const box = document.createElement("div");
  for (const line of (text || "").split("\n").filter(Boolean)) {
    const paragraph = document.createElement("p");
    line.replace(/^- /, "").split("`").forEach((piece, index) => {
      paragraph.append(index % 2 ? element("code", piece) : piece);
    });
    box.append(paragraph);
  }
  return box;
}

function resolve(schema, api) {
  if (!schema || !schema.$ref) return schema || {};
  return api.components.schemas[schema.$ref.split("/").pop()] || {};
}

// An example-like outline of a schema, as deep as it goes without coming back to itself.
function outline(schema, api, depth = 0) {
  const found = resolve(schema, api);
  if (depth > 6) return "…";
  const choices = found.oneOf || found.anyOf;
  if (choices) return choices.map((choice) => outline(choice, api, depth)).join("\nor ");
  const indent = "  ".repeat(depth + 1);
  if (found.properties) {
    const needed = new Set(found.required || []);
    const lines = Object.entries(found.properties).map(([key, value]) => {
      return indent + '"' + key + '"' + (needed.has(key) ? "" : "?") + ": " + outline(value, api, depth + 1);
    });
    return "{\n" + lines.join(",\n") + "\n" + "  ".repeat(depth) + "}";
  }
  if (found.allOf) return found.allOf.map((part) => outline(part, api, depth)).join(" & ");
  if (found.items) return "[" + outline(found.items, api, depth) + ", …]";
  if (found.additionalProperties) return "{ name: " + outline(found.additionalProperties, api, depth + 1) + ", … }";
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(" | ");
  return [].concat(found.type || "any").join(" | ") + (found.format ? " (" + found.format + ")" : "");
}

function content(kinds, api) {
  const box = document.createElement("div");
  for (const [type, { schema }] of Object.entries(kinds || {})) {
    box.append(element("code", type), element("pre", outline(schema, api)));
  }
  return box;
}

function row(table, first, ...rest) {
  const line = table.insertRow();
  line.insertCell().append(element("code", first));
  line.insertCell().append(...rest);
}

function operation(path, method, detail, api) {
  const box = document.createElement("details");
  box.id = detail.operationId;
  const summary = document.createElement("summary");
  summary.append(element("span", method.toUpperCase(), "method"), element("code", path));
  summary.append(element("span", " " + (detail.summary || ""), "what"));
  box.append(summary, prose(detail.description));
  if (detail.parameters) {
    const table = document.createElement("table");
    for (const parameter of detail.parameters) {
      row(table, parameter.name, prose(parameter.description + " (" + outline(parameter.schema, api) + ")"));
    }
    box.append(element("h3", "Parameters"), table);
  }
  if (detail.requestBody) box.append(element("h3", "Body"), content(detail.requestBody.content, api));
  const answers = document.createElement("table");
  for (const [status, answer] of Object.entries(detail.responses)) {
    row(answers, status, prose(answer.description), ...(status < 300 ? [content(answer.content, api)] : []));
  }
  box.append(element("h3", "Answers"), answers);
  return box;
}

function draw(api) {
  document.getElementById("about").textContent = api.info.description + " Version " + api.info.version + ".";
  const index = document.createElement("ul");
  const main = document.getElementById("operations");
  main.replaceChildren();
  for (const tag of api.tags) {
    main.append(element("h2", tag.name), prose(tag.description));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, detail] of Object.entries(methods)) {
        if (!(detail.tags || []).includes(tag.name)) continue;
        main.append(operation(path, method, detail, api));
        const link = element("a", method.toUpperCase() + " " + path);
        link.href = "#" + detail.operationId;
        const item = document.createElement("li");
        item.append(link);
        index.append(item);
      }
    }
  }
  document.getElementById("index").replaceChildren(index);
  main.append(element("h2", "Errors"), prose("Every error has this JSON."), element("pre", outline({ $ref: "ErrorBody" }, api)));
  open();
}

function open() {
  const named = document.getElementById(location.hash.slice(1));
  if (named) named.open = true;
}

addEventListener("hashchange", open);
fetch("openapi.json").then((response) => response.json()).then(draw).catch(() => {
  document.getElementById("operations").textContent = "The document cannot be read.";
});
