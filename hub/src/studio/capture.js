/**
 * capture.js: what a browser sees and hears.
 *
 * Owns: the questions for camera, screen and microphone, and the way from their tracks to single pictures and blocks of
 * sound: by a track's processor where a page has one, else by a video element and an audio worklet.
 * Does not know: encoders, the hub, or the page's elements.
 */

/** The sizes that a person may choose: short side, pictures a second, bit/s. */
export const QUALITIES = {
  360: { side: 360, rate: 30, bitrate: 800_000 },
  720: { side: 720, rate: 30, bitrate: 2_000_000 },
  1080: { side: 1080, rate: 30, bitrate: 4_000_000 },
};

const sound = (microphone) => (microphone === "off" ? false : {
  ...(microphone ? { deviceId: { exact: microphone } } : {}), echoCancellation: true, noiseSuppression: true, channelCount: { ideal: 2 },
});

/** Camera and microphone. `microphone`: an id, "off", or "" for whichever. `facing`: user or environment. */
export async function camera({ device, facing, microphone, quality }) {
  const { side, rate } = QUALITIES[quality];
  const which = device ? { deviceId: { exact: device } } : facing ? { facingMode: { ideal: facing } } : {};
  const video = { ...which, width: { ideal: Math.round((side * 16) / 9) }, height: { ideal: side }, frameRate: { ideal: rate, max: rate } };
  return navigator.mediaDevices.getUserMedia({ video, audio: sound(microphone) });
}

/** A screen or window, with its own sound where the browser gives that, else with the microphone. */
export async function screen({ microphone, quality }) {
  const { side, rate } = QUALITIES[quality];
  const size = { width: { max: Math.round((side * 16) / 9) }, height: { max: side }, frameRate: { ideal: rate, max: rate } };
  const stream = await navigator.mediaDevices.getDisplayMedia({ video: size, audio: microphone !== "off" });
  if (stream.getAudioTracks().length === 0 && microphone !== "off") {
    try {
      const own = await navigator.mediaDevices.getUserMedia({ audio: sound(microphone) });
      for (const track of own.getAudioTracks()) stream.addTrack(track);
    } catch { /* the screen without sound is better than none */ }
  }
  return stream;
}

export const hasScreen = () => Boolean(navigator.mediaDevices?.getDisplayMedia);

/** Cameras and microphones; their names are known once the person has allowed one. */
export async function devices() {
  const all = await navigator.mediaDevices.enumerateDevices();
  const of = (kind) => all.filter((one) => one.kind === kind && one.deviceId);
  return { cameras: of("videoinput"), microphones: of("audioinput") };
}

/** Hands over each picture of a track, which the receiver closes; returns how to stop. */
export function pictures(track, receive) {
  return "MediaStreamTrackProcessor" in globalThis ? processed(track, receive) : shown(track, receive);
}

/** Hands over each block of sound of a track, which the receiver closes; returns how to stop. */
export function blocks(track, receive) {
  return "MediaStreamTrackProcessor" in globalThis ? processed(track, receive) : heard(track, receive);
}

function processed(track, receive) {
  // A track of one's own: to stop reading it ends it.
  const own = track.clone();
  own.enabled = track.enabled;
  const reader = new MediaStreamTrackProcessor({ track: own }).readable.getReader();
  let isOpen = true;
  (async () => {
    while (isOpen) {
      const { done, value } = await reader.read();
      if (done) return;
      if (isOpen) receive(value);
      else value.close();
    }
  })().catch(() => {});
  const stop = () => {
    isOpen = false;
    reader.cancel().catch(() => {});
    own.stop();
  };
  stop.mute = (isMuted) => { own.enabled = !isMuted; };
  return stop;
}

function shown(track, receive) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, srcObject: new MediaStream([track]) });
  let isOpen = true;
  const next = () => video.requestVideoFrameCallback((now) => {
    if (!isOpen) return;
    next();
    let frame;
    try {
      frame = new VideoFrame(video, { timestamp: Math.round(now * 1000) });
    } catch {
      return; // the first one may be announced before it can be had
    }
    receive(frame);
  });
  next();
  video.play().catch(() => {});
  return () => {
    isOpen = false;
    video.srcObject = null;
  };
}

function heard(track, receive) {
  const context = new AudioContext();
  let at = 0;
  (async () => {
    await context.audioWorklet.addModule(new URL("./sound.js", import.meta.url));
    const node = new AudioWorkletNode(context, "samples", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data: { data, channels, frames, rate } }) => {
      receive(new AudioData({ format: "f32-planar", sampleRate: rate, numberOfFrames: frames, numberOfChannels: channels, timestamp: Math.round((at * 1e6) / rate), data }));
      at += frames;
    };
    context.createMediaStreamSource(new MediaStream([track])).connect(node);
    await context.resume();
  })().catch(() => {});
  return () => { context.close(); };
}
