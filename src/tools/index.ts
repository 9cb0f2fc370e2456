import { bashTool } from "./bash.js";
import { forwardPortTool } from "./forward-port.js";
import { readFileTool } from "./read-file.js";
import { restoreTool } from "./restore.js";
import { snapshotTool } from "./snapshot.js";
import type { Tool } from "./tool.js";
import { writeFileTool } from "./write-file.js";

/** All tools, in the order in which clients show them. */
export const tools: readonly Tool[] = [
	bashTool,
	readFileTool,
	writeFileTool,
	snapshotTool,
	restoreTool,
	forwardPortTool,
];
