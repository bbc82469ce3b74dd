// The page: it reads a photo or the camera, sends it to the worker, and shows what comes back.
// ?engine=wasm at the end of the address does without WebGPU.

const the = (id) => document.getElementById(id);
const canvas = the("canvas"), pen = canvas.getContext("2d");
const source = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const worker = new Worker("painter.js", { type: "module" });
let network, engine = "", photo = null, stream = null, facing = "environment", busy = false, again = false;

const say = (text) => { the("status").textContent = text; };
const sliders = () => [...document.querySelectorAll("#styles input")];

function setUp() {
  const upscales = network.scale > 1, several = network.styles.length > 1;
  document.title = the("title").textContent = upscales ? "Enlarge a photo" : "Paint a photo";
  the("about").textContent = [network.about, network.licence].filter(Boolean).join(". Licence: ");
  the("strength-row").hidden = !network.inputs.includes("strength");
  the("styles").hidden = !several;
  network.styles.forEach(({ name, title }, index) => {
    if (!several) return;
    const row = document.createElement("div"), only = document.createElement("button");
    const slider = document.createElement("input"), value = document.createElement("output");
    row.className = "row";
    Object.assign(only, { type: "button", textContent: name.replaceAll("_", " "), title });
    only.setAttribute("aria-label", `Only ${only.textContent}`);
    Object.assign(slider, { type: "range", min: 0, max: 100, value: index ? 0 : 100, id: `style-${name}` });
    slider.setAttribute("aria-label", `Share of ${only.textContent}`);
    value.setAttribute("for", slider.id);
    only.onclick = () => { for (const each of sliders()) each.value = each === slider ? 100 : 0; changed(); };
    slider.oninput = changed;
    row.append(only, slider, value);
    the("styles").append(row);
  });
  if (engine === "WebGPU") the("side").value = "1024";
  for (const id of ["strength", "side"]) the(id).oninput = changed;
  changed();
}

// The controls have changed: show their values, and paint again.
function changed() {
  const all = sliders();
  const total = all.reduce((sum, each) => sum + Number(each.value), 0);
  if (all.length && !total) all[0].value = 1; // one style must have a share
  for (const each of all) each.nextElementSibling.textContent = `${total ? Math.round(100 * each.value / total) : 0} %`;
  the("strength-value").textContent = `${the("strength").value} %`;
  paint();
}

// Paint the photo, or the frame that the camera shows now. While a picture is painted, remember to paint again.
function paint() {
  const from = stream ? the("video") : photo;
  if (!from || !engine) return;
  if (busy) { again = true; return; }
  const full = [from.videoWidth || from.width, from.videoHeight || from.height];
  if (!full[0]) return;
  const scale = Math.min(1, Number(the("side").value) / Math.max(...full));
  const [width, height] = full.map((length) => Math.max(1, Math.round(length * scale)));
  source.canvas.width = width;
  source.canvas.height = height;
  source.fillStyle = "white"; // behind transparent parts
  source.fillRect(0, 0, width, height);
  source.imageSmoothingQuality = "high";
  source.drawImage(from, 0, 0, width, height);
  const { data } = source.getImageData(0, 0, width, height);
  busy = true;
  if (!stream) say("Painting …");
  const weights = network.styles.length > 1 ? sliders().map((each) => Number(each.value)) : [1];
  const strength = the("strength").value / 100;
  worker.postMessage({ width, height, pixels: data, weights, strength }, [data.buffer]);
}

function show({ width, height, pixels, seconds }) {
  Object.assign(canvas, { width, height });
  pen.putImageData(new ImageData(pixels, width, height), 0, 0);
  canvas.setAttribute("aria-label", `The result, ${width} by ${height} pixels`);
  canvas.dataset.pictures = Number(canvas.dataset.pictures ?? 0) + 1;
  the("hint").hidden = true;
  the("save").disabled = false;
  say(`${width} × ${height} pixels in ${seconds.toFixed(2)} seconds (${engine}).`);
}

worker.onmessage = ({ data }) => {
  if (data.ready) {
    [engine, network] = [data.ready, data.network];
    say(`Ready (${engine}).`);
    setUp();
    return;
  }
  busy = false;
  if (data.error) say(`This did not work: ${data.error} Try a smaller picture.`);
  else show(data);
  if (again || (stream && !data.error)) {
    again = false;
    requestAnimationFrame(paint);
  }
};
worker.onerror = () => say("This browser cannot run the page: use a new version of Chrome, Edge, Firefox or Safari.");

async function open(file) {
  if (!file) return;
  stopCamera();
  try {
    photo = await createImageBitmap(file);
    paint();
  } catch {
    say(`${file.name || "The file"} is not a picture that this browser can read.`);
  }
}

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  the("camera").textContent = "Start the camera";
  the("camera").setAttribute("aria-pressed", "false");
  the("turn").hidden = true;
}

async function startCamera() {
  const video = the("video");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing }, audio: false });
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    stopCamera();
    say(`The camera does not start (${error.name}): allow it for this page, and open the page by https or localhost.`);
    return;
  }
  photo = null;
  the("camera").textContent = "Stop the camera";
  the("camera").setAttribute("aria-pressed", "true");
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((each) => each.kind === "videoinput");
  the("turn").hidden = cameras.length < 2;
  paint();
}

the("file").onchange = ({ target }) => { open(target.files[0]); target.value = ""; };
the("camera").onclick = () => (stream ? stopCamera() : startCamera());
the("turn").onclick = () => {
  facing = facing === "user" ? "environment" : "user";
  stopCamera();
  startCamera();
};
the("save").onclick = () => canvas.toBlob((blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "picture.png";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}, "image/png");

const place = the("picture");
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    place.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") open(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => open(event.clipboardData.files[0]));

worker.postMessage({ engine: new URLSearchParams(location.search).get("engine") ?? "" });
