/**
 * An image's boot snapshots: the machine right after its boot, one for each memory size, so that starting is restoring.
 * A cache: one that is missing, damaged or of another build is made again.
 */

import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { describeError, SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { emulatorVersion } from "./emulator-version.js";
import type { MachineSaved } from "./machine.js";
import type { MachineImage } from "./machine-image.js";
import type { StateFile } from "./process-messages.js";
import { readSnapshotHeader, writeSnapshotFile } from "./snapshot/file.js";
import type { SnapshotHeader } from "./snapshot/format.js";
import { TempFiles } from "./snapshot/temp-files.js";

/** A boot snapshot is found by its path; no one ever names it by its id. */
const BOOT_ID = "s-00000000-000000-00000000";

/**
 * Where the boot snapshot's state lies, or undefined if there is none that fits. Its bytes are not checked here: the machine
 * process does that while it reads them.
 */
export async function findBootSnapshot(
	image: MachineImage,
	memoryMiB: number,
	log: Log,
): Promise<StateFile | undefined> {
	const path = bootSnapshotPath(image, memoryMiB);
	try {
		const { header, stateOffset } = await readSnapshotHeader(path);
		if (isBootSnapshotOf(header, image.digest)) {
			return { path, offset: stateOffset, bytes: header.stateBytes, sha256: header.stateSha256 };
		}
		log.info(`${path} is of another build; it is made again`);
	} catch (error) {
		if (error instanceof SandboxError && error.code === "not-found") return undefined;
		log.warn(`${describeError(error)}; it is made again`);
	}
	await removeBootSnapshot(image, memoryMiB);
	return undefined;
}

/** Writes the image's boot snapshot for the machine's memory size; it is there in full or not at all. */
export async function writeBootSnapshot(image: MachineImage, saved: MachineSaved): Promise<void> {
	await mkdir(image.bootSnapshotsPath, { recursive: true });
	const temp = new TempFiles(image.bootSnapshotsPath);
	await temp.removeStale();
	const path = temp.create();
	const { state, ...header } = saved;
	try {
		await writeSnapshotFile(path, { ...header, id: BOOT_ID, created: new Date().toISOString() }, state);
		await rename(path, bootSnapshotPath(image, saved.memoryMiB));
	} finally {
		await temp.remove(path);
	}
}

export async function removeBootSnapshot(image: MachineImage, memoryMiB: number): Promise<void> {
	await rm(bootSnapshotPath(image, memoryMiB), { force: true });
}

/** Whether it can be used for the image with that digest, by this program's emulator. */
export function isBootSnapshotOf(
	header: Pick<SnapshotHeader, "imageDigest" | "emulatorVersion">,
	imageDigest: string,
): boolean {
	return header.imageDigest === imageDigest && header.emulatorVersion === emulatorVersion();
}

/** Its name in the image's folder of boot snapshots. */
export function bootSnapshotName(memoryMiB: number): string {
	return `${memoryMiB}mib.sbx86`;
}

function bootSnapshotPath(image: MachineImage, memoryMiB: number): string {
	return join(image.bootSnapshotsPath, bootSnapshotName(memoryMiB));
}
