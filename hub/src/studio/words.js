/**
 * words.js: what the studio says, in English and Chinese.
 *
 * Owns: the texts, and which of them belongs to a problem's code: what is wrong, and what to do.
 * Refuses: nothing; a code that it doesn't know gets the hub's own words. Pure; tests/hub/studio/ runs it in Node.
 */

const english = {
  page: "Studio", about: "Go live from this device", preview: "Preview", desk: "Controls", curtain: "Nothing is sent before you press “Go live”.",
  useCamera: "Use the camera", useScreen: "Share a screen", flip: "Other camera", go: "Go live", stop: "Stop", mute: "Mute", unmute: "Unmute", silent: "No sound",
  sent: "Sent", behind: "Behind", dropped: "Dropped", source: "Picture", camera: "Camera", screen: "Screen", microphone: "Microphone", quality: "Quality",
  noSound: "No sound", usual: "Default", hubSays: (detail) => `The hub says: ${detail}.`, cameraNumber: (n) => `Camera ${n}`, microphoneNumber: (n) => `Microphone ${n}`, kbits: (n) => `${n} kbit/s`, seconds: (n) => `${n} s`, groups: (n) => `${n}`,
  lowered: (n) => `lowered to ${n} kbit/s`,
  states: { empty: "Not live", ready: "Not live", connecting: "Connecting…", live: "Live", waiting: "Reconnecting…", refused: "Not live" },
  lacks: {
    h264: "The picture goes out without H.264, which this browser can’t encode. Some iPhones and older Safari don’t show it.",
    aac: "Sound goes out as Opus, since this browser can’t encode AAC. Older iPhones and Safari see and hear nothing: choose “No sound” for them, or go live from another browser.",
  },
  problems: {
    noLink: ["This address has no token.", "Open the whole link that you were given, with what stands behind the #."],
    insecure: ["A browser gives the camera to safe pages only.", "Open this page by https, or on the machine itself by http://localhost."],
    noDevices: ["This browser gives pages no camera.", "Use another browser, such as Chrome, Safari, Edge or Firefox."],
    denied: ["The browser may not use the camera or the microphone.", "Allow them for this page, by the sign left of the address or in the system’s settings, and try again."],
    screenDenied: ["No screen was shared.", "Choose “Screen” again and pick one."],
    notFound: ["No such camera or microphone was found.", "Connect one, or choose another below."],
    inUse: ["The camera or the microphone is in use.", "Close the other program or tab that uses it, and try again."],
    noEncoder: ["This browser can’t encode what viewers can play.", "Use a current Chrome, Safari, Edge or Firefox."],
    encoder: ["The encoder has failed.", "Go live again; choose a lower quality if it fails again."],
    trackEnded: ["The camera or the screen has ended.", "Choose the picture again to go on."],
    unreachable: ["The hub can’t be reached.", "Check the network. It is tried again by itself."],
    cut: ["The connection broke.", "It is made again by itself."],
    silent: ["The network takes nothing.", "Another connection is tried by itself."],
    renewed: ["The stream begins anew.", ""],
    ending: ["The hub restarts.", "It is tried again by itself."],
    engine_unavailable: ["The hub has a fault just now.", "It is tried again by itself."],
    busy: ["The hub is busy.", "It is tried again by itself."],
    too_many_requests: ["Too many devices of this network use the hub.", "It is tried again by itself."],
    too_slow: ["The hub waited in vain for pictures.", "Keep this page in front. It is tried again by itself."],
    full: ["The hub has no room for another stream.", "It is tried again by itself, until one ends; tell whoever runs the hub."],
    already_live: ["Somebody else is live here.", "You are next, by itself, once they stop."],
    taken_over: ["This link went live on another device.", "Stop it there, then go live here again."],
    unknown_key: ["This link has expired, or is wrong.", "Ask whoever sent it for a new one."],
    token_revoked: ["This link was taken back.", "Ask whoever sent it for a new one."],
    outside_prefix: ["This link’s token is for another topic.", "Open the whole link as you were given it."],
    invalid_topic: ["This link’s topic has no valid name.", "Open the whole link as you were given it."],
    topic_ended: ["This room has ended.", "Whoever runs it can open it again."],
    invalid_media: ["The hub can’t use what this browser encodes.", "Try another quality or another browser."],
    too_large: ["The picture is too large for the hub.", "Choose a lower quality."],
  },
};

const chinese = {
  page: "直播台", about: "用这台设备开播", preview: "预览", desk: "控制", curtain: "点击“开播”之前不会发送任何内容。",
  useCamera: "使用摄像头", useScreen: "共享屏幕", flip: "切换摄像头", go: "开播", stop: "停止", mute: "静音", unmute: "取消静音", silent: "无声音",
  sent: "发送", behind: "落后", dropped: "丢弃", source: "画面", camera: "摄像头", screen: "屏幕", microphone: "麦克风", quality: "清晰度",
  noSound: "无声音", usual: "默认", hubSays: (detail) => `服务器说：${detail}。`, cameraNumber: (n) => `摄像头 ${n}`, microphoneNumber: (n) => `麦克风 ${n}`, kbits: (n) => `${n} kbit/s`, seconds: (n) => `${n} 秒`, groups: (n) => `${n}`,
  lowered: (n) => `已降到 ${n} kbit/s`,
  states: { empty: "未开播", ready: "未开播", connecting: "正在连接…", live: "直播中", waiting: "正在重新连接…", refused: "未开播" },
  lacks: {
    h264: "这个浏览器不能编码 H.264，部分 iPhone 和旧版 Safari 看不到画面。",
    aac: "这个浏览器不能编码 AAC，声音以 Opus 发送。旧版 iPhone 和 Safari 看不到也听不到：请选择“无声音”，或改用其他浏览器开播。",
  },
  problems: {
    noLink: ["这个地址没有令牌。", "请打开收到的完整链接，包括 # 后面的部分。"],
    insecure: ["浏览器只允许安全的页面使用摄像头。", "请用 https 打开，或在本机用 http://localhost 打开。"],
    noDevices: ["这个浏览器不让网页使用摄像头。", "请换用 Chrome、Safari、Edge 或 Firefox。"],
    denied: ["浏览器没有得到使用摄像头或麦克风的许可。", "请在地址栏左侧或系统设置中允许，然后重试。"],
    screenDenied: ["没有共享屏幕。", "请再次选择“屏幕”并选取一个。"],
    notFound: ["没有找到这样的摄像头或麦克风。", "请连接设备，或在下面选择另一个。"],
    inUse: ["摄像头或麦克风正被使用。", "请关闭占用它的程序或标签页，然后重试。"],
    noEncoder: ["这个浏览器不能编码观众可以播放的格式。", "请使用新版的 Chrome、Safari、Edge 或 Firefox。"],
    encoder: ["编码器出错了。", "请重新开播；如果再次出错，请降低清晰度。"],
    trackEnded: ["摄像头或屏幕已停止。", "请重新选择画面。"],
    unreachable: ["无法连接到服务器。", "请检查网络，会自动重试。"],
    cut: ["连接断开了。", "会自动重新连接。"],
    silent: ["网络没有响应。", "会自动换一个连接。"],
    renewed: ["直播流重新开始。", ""],
    ending: ["服务器正在重启。", "会自动重试。"],
    engine_unavailable: ["服务器暂时有故障。", "会自动重试。"],
    busy: ["服务器繁忙。", "会自动重试。"],
    too_many_requests: ["这个网络有太多设备在使用服务器。", "会自动重试。"],
    too_slow: ["服务器没有等到画面。", "请让本页保持在前台，会自动重试。"],
    full: ["服务器没有空位。", "会自动重试，直到有直播结束；请告知管理员。"],
    already_live: ["已有人在这里直播。", "对方停止后会自动轮到你。"],
    taken_over: ["这个链接在另一台设备上开播了。", "请先在那里停止，再在这里开播。"],
    unknown_key: ["链接已过期或不正确。", "请向发送者索取新的链接。"],
    token_revoked: ["链接已被收回。", "请向发送者索取新的链接。"],
    outside_prefix: ["链接的令牌属于另一个房间。", "请打开收到的完整链接。"],
    invalid_topic: ["链接中的房间名无效。", "请打开收到的完整链接。"],
    topic_ended: ["房间已结束。", "管理者可以重新开放。"],
    invalid_media: ["服务器不能使用这个浏览器编码的内容。", "请换一个清晰度或浏览器。"],
    too_large: ["画面对服务器来说太大。", "请降低清晰度。"],
  },
};

// Where whoever revoked it gave none.
const USUAL_REASON = "this link was revoked";

/** The texts of a language, as browsers name it. */
export const words = (language) => (/^zh\b/i.test(language) ? chinese : english);

/** What is wrong, and what to do; `reason` is whoever's who did it. */
export function explained(all, { code, detail, reason }) {
  if (!all.problems[code]) return { text: detail ?? code, help: "" };
  const [text, help] = all.problems[code];
  // What an encoder did wrong only the hub knows.
  const more = code === "invalid_media" && detail ? ` ${all.hubSays(detail)}` : "";
  return { text: reason && reason !== USUAL_REASON ? `${text} (${reason})` : text, help: help + more };
}
