// The camera of the page: sends its newest image, waits for the painting, shows it, and takes the next image.
// So the picture never lags: images that come while one is painted are not sent.
const root = element.querySelector('.camera');
const video = root.querySelector('video');
const painting = root.querySelector('img');
const status = root.querySelector('[role=status]');
const canvas = document.createElement('canvas');
let stream = null, side = 320, took = null, recording = null, times = [];
let turn = 0;  // counts starts and stops: what an earlier turn opened is closed again

const sleep = time => new Promise(done => setTimeout(done, time));
const newImage = () => new Promise(done => {
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(done);
  setTimeout(done, video.requestVideoFrameCallback ? 500 : 30);
});
const say = text => { if (status.textContent !== text) status.textContent = text; };

function picture() {
  const scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.max(16, 2 * Math.round(video.videoWidth * scale / 2));
  canvas.height = Math.max(16, 2 * Math.round(video.videoHeight * scale / 2));
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.setTransform(-1, 0, 0, 1, canvas.width, 0);  // as in a mirror
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL('image/jpeg', 0.92);
}

function report() {
  const now = performance.now();
  times = [...times.slice(-15), now];
  const past = (now - times[0]) / 1000;
  const rate = past ? `, ${((times.length - 1) / past).toFixed(0)} frames per second` : '';
  const length = recording === null ? '' : `, recording: ${recording.toFixed(0)} s`;
  say(`${canvas.width} x ${canvas.height} px${rate}${length}`);
}

async function paint(mine) {
  const began = performance.now();
  const longest = Math.max(video.videoWidth, video.videoHeight);
  const answer = await server.camera_frame({ client: props.value, picture: picture(), longest, took });
  if (mine !== turn) return;
  if (answer.error) throw new Error(answer.error);
  painting.src = answer.picture;
  took = (performance.now() - began) / 1000;
  side = answer.side;
  if (recording !== null && answer.recording === null) trigger('ended');
  recording = answer.recording;
  report();
}

async function run(mine) {
  while (mine === turn) {
    await newImage();
    if (mine !== turn || !root.isConnected) break;
    if (!video.videoWidth || (root.offsetParent === null && recording === null)) await sleep(200);
    else await paint(mine);
  }
}

function stop(text) {
  turn++;
  if (stream) stream.getTracks().forEach(track => track.stop());
  if (recording !== null) trigger('ended');
  stream = video.srcObject = recording = took = null;
  times = [];
  say(text);
}

async function start() {
  if (stream) return;
  if (!navigator.mediaDevices) return say('The browser gives its camera only to pages of this computer and over https.');
  const mine = ++turn;
  say('Waiting for the camera ...');
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } }, audio: false });
    if (mine !== turn) return opened.getTracks().forEach(track => track.stop());
    stream = video.srcObject = opened;
    await video.play();
    video.style.aspectRatio = painting.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
  } catch (error) {
    if (mine !== turn) return;
    return stop('The browser did not open a camera: connect one and allow its use.');
  }
  try {
    await run(mine);
  } catch (error) {
    if (mine === turn) stop(error.message || 'The page is not reached any more: start perceptual studio again.');
  }
}

root.addEventListener('camera-start', start);
root.addEventListener('camera-stop', () => stop('The camera is off.'));
