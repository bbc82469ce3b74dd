// Paints pictures in a worker, so that the page answers meanwhile. WebGPU is used where it is right, else WASM.
//
// in:  {engine: "wasm" or ""} once, then {width, height, pixels, weights, strength}: RGBA bytes, row by row
// out: {ready: engine, network}, then {width, height, pixels, seconds}; {error} if something failed

import { noiseTile } from "./noise.js";

const CLOSE = 4; // levels of 255 by which WebGPU may differ from WASM
let ort, session, network, noise;

async function load(wanted) {
  network = await (await fetch("network.json")).json();
  const gpu = wanted !== "wasm" && navigator.gpu && (await navigator.gpu.requestAdapter().catch(() => null));
  ort = await import(gpu ? "./runtime/ort.webgpu.min.mjs" : "./runtime/ort.wasm.min.mjs");
  const file = gpu ? "ort-wasm-simd-threaded.asyncify" : "ort-wasm-simd-threaded";
  const at = (ending) => new URL(`runtime/${file}${ending}`, self.location.href).href;
  ort.env.wasm.wasmPaths = { mjs: at(".mjs"), wasm: at(".wasm") };
  // Threads need headers (COOP and COEP) that plain servers do not send.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  if (network.noise) noise = new ort.Tensor("float32", noiseTile(network.noise), [1, 1, 1024, 1024]);
  const model = new Uint8Array(await (await fetch("network.onnx")).arrayBuffer());
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  let engine = "WASM";
  if (gpu) {
    const fast = await checked(model).catch(() => null);
    if (fast) [session, engine] = [fast, "WebGPU"];
  }
  return engine;
}

// A session on WebGPU if it gives the result of WASM for a small picture, and is faster; null otherwise. A computer
// without a graphics processor may have WebGPU too, computed by the CPU.
async function checked(model) {
  const other = await ort.InferenceSession.create(model, { executionProviders: ["webgpu"] });
  const side = 96, pixels = new Uint8ClampedArray(4 * side * side);
  for (let i = 0; i < pixels.length; i++) pixels[i] = 128 + 100 * Math.sin(i / 61) * Math.cos(i / 7919);
  const weights = network.styles.map(() => 1);
  const picture = { width: side, height: side, pixels, weights, strength: 1 };
  const one = await run(session, picture), first = await run(other, picture); // the first run prepares shaders
  if (one.pixels.some((value, i) => Math.abs(value - first.pixels[i]) > CLOSE)) return null;
  return (await run(other, picture)).seconds < one.seconds ? other : null;
}

async function run(using, { width, height, pixels, weights, strength }) {
  const area = width * height, planes = new Uint8Array(3 * area);
  for (let i = 0; i < area; i++)
    for (let c = 0; c < 3; c++) planes[c * area + i] = pixels[4 * i + c];
  const inputs = { image: new ort.Tensor("uint8", planes, [1, 3, height, width]) };
  if (network.inputs.includes("styles")) {
    inputs.styles = new ort.Tensor("float32", Float32Array.from(weights), [weights.length]);
    inputs.strength = new ort.Tensor("float32", Float32Array.of(strength), [1]);
  }
  if (noise) inputs.noise = noise;
  const began = performance.now();
  const { result } = await using.run(inputs);
  const data = await result.getData(), [, , high, wide] = result.dims, size = high * wide;
  const seconds = (performance.now() - began) / 1000;
  const painted = new Uint8ClampedArray(4 * size).fill(255);
  for (let i = 0; i < size; i++)
    for (let c = 0; c < 3; c++) painted[4 * i + c] = data[c * size + i];
  result.dispose();
  return { width: wide, height: high, pixels: painted, seconds };
}

self.onmessage = async ({ data }) => {
  try {
    if ("engine" in data) {
      const engine = await load(data.engine);
      self.postMessage({ ready: engine, network });
    } else {
      const made = await run(session, data);
      self.postMessage(made, [made.pixels.buffer]);
    }
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
};
