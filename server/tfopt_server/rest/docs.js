"use strict";
// Draws a form per operation of /openapi.json and sends what it holds. Everything is set as text, never as markup.
const LONGEST = 200000; // characters of an answer that are shown

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child != null));
  return node;
}

// Indented, but arrays of plain values stay on one line.
function pretty(value) {
  const flat = (_, inner) => `[${inner.trim().split(/,\s*\n\s*/).join(", ")}]`;
  return JSON.stringify(value, null, 2).replace(/\[\s+([^[\]{}]*?)\s+\]/g, flat);
}

function bodies(operation, spec) {
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  if (!content) return null;
  const named = (reference) => spec.components.schemas[reference.$ref.split("/").pop()];
  // allOf: a body, and what may stand in it besides.
  const [body, besides] = content.schema.allOf || [content.schema];
  const more = besides ? named(besides).examples[0] : {};
  return (body.anyOf || [body]).map((reference) => {
    const schema = named(reference);
    const example = schema.examples ? schema.examples[0] : { instances: [] };
    return { title: schema.title || "body", text: pretty({ ...example, ...more }) };
  });
}

function address(path, fields) {
  return path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(fields[name].value));
}

async function send(method, url, body, out, button) {
  button.disabled = true;
  const began = performance.now();
  try {
    const headers = body === null ? { accept: "application/json, text/plain;q=0.9" } : { "content-type": "application/json" };
    const answer = await fetch(url, { method, body, headers });
    const text = await answer.text();
    const took = (performance.now() - began).toFixed(1);
    const cut = text.length > LONGEST ? text.slice(0, LONGEST) + "\n…" : text;
    const head = `${answer.status} ${answer.statusText} · ${took} ms · ${text.length.toLocaleString("en")} characters`;
    out.replaceChildren(make("b", { className: answer.ok ? "" : "bad", textContent: head }), make("pre", { textContent: cut }));
  } catch (error) {
    out.replaceChildren(make("b", { className: "bad", textContent: `no answer: ${error.message}` }));
  } finally {
    button.disabled = false;
  }
}

function form(method, path, operation, parameters, spec) {
  const fields = {};
  const inputs = parameters.map((parameter) => {
    const known = parameter.schema.examples || [];
    const input = make("input", { value: known[0] || (parameter.schema.type === "integer" ? "1" : ""), required: true, spellcheck: false });
    fields[parameter.name] = input;
    return make("label", {}, parameter.name, input);
  });
  const choices = bodies(operation, spec);
  const text = choices && make("textarea", { value: choices[0].text, spellcheck: false, ariaLabel: "request body" });
  let choose = null;
  if (choices && choices.length > 1) {
    choose = make("select", {}, ...choices.map((c, i) => make("option", { value: i, textContent: c.title })));
    choose.addEventListener("change", () => { text.value = choices[choose.value].text; });
    choose = make("label", {}, "signature", choose);
  }
  const out = make("output", {});
  const button = make("button", { textContent: "Send" });
  const node = make("form", {}, ...inputs, choose, text && make("label", { className: "wide" }, "body", text), button, out);
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    send(method.toUpperCase(), address(path, fields), text ? text.value : null, out, button);
  });
  return node;
}

function draw(spec) {
  const main = document.getElementById("main");
  main.append(
    make("h1", { textContent: "Requests" }),
    make("p", { textContent: `${spec.info.title} ${spec.info.version}. ${spec.info.description} The same as a document: /openapi.json` }),
  );
  for (const tag of spec.tags) {
    main.append(make("h2", { textContent: tag.name }), make("p", { textContent: tag.description }));
    for (const [path, item] of Object.entries(spec.paths)) {
      for (const method of ["get", "post"]) {
        const operation = item[method];
        if (!operation || !operation.tags.includes(tag.name)) continue;
        const head = make("summary", {},
          make("b", { className: `verb ${method}`, textContent: method.toUpperCase() }),
          make("code", { textContent: path }),
          make("span", { textContent: operation.summary }));
        main.append(make("details", { id: operation.operationId }, head, form(method, path, operation, item.parameters || [], spec)));
      }
    }
  }
  const first = document.getElementById(location.hash.slice(1)) || main.querySelector("details");
  if (first) first.open = true;
}

fetch("/openapi.json").then((answer) => answer.json()).then(draw).catch((error) => {
  document.getElementById("main").append(make("p", { textContent: `/openapi.json cannot be read: ${error.message}` }));
});
