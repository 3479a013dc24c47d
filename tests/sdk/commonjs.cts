// A CommonJS module of TypeScript finds the same types.

import sdk = require("@sharelinkd/server");

export const url: string = new sdk.Hub({ url: "http://127.0.0.1", key: "k" }).url;
