/**
 * Fuzzes the relay with frames grown from test/captures: npm run fuzz:network -- [FRAMES [SEED]]; 10 million without a number.
 */

import { fileURLToPath } from "node:url";
import { guestFrames } from "../test/fuzz/capture-frames.js";
import { fuzzRelay } from "../test/fuzz/relay-fuzzer.js";

const [frames = 10_000_000, seed = Date.now() % 2 ** 31] = process.argv.slice(2).map(Number);
const captured = guestFrames(fileURLToPath(new URL("../../test/captures", import.meta.url)));
process.stdout.write(`${frames} frames from ${captured.length} captured ones, seed ${seed}\n`);
const startMs = performance.now();
const report = await fuzzRelay(captured, frames, seed, globalThis.gc);
const seconds = (performance.now() - startMs) / 1000;
process.stdout.write(`${JSON.stringify(report)}\n${Math.round(frames / seconds)} frames/s, ${Math.round(seconds)} s\n`);
