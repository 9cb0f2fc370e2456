/** What a machine boots from: paths on the host that the machine process may read, and nothing else. */

export interface MachineImage {
	/** The image's name, as the user says it ("base"). */
	readonly name: string;
	/** SHA-256 (hex) over the image's contents: kernel, init, firmware and tree. A snapshot fits only the image that has its digest. */
	readonly digest: string;
	/** Absolute path of the kernel (bzImage). */
	readonly kernelPath: string;
	/** Absolute path of the initramfs that holds our init. */
	readonly initramfsPath: string;
	/** Absolute path of the PC firmware (SeaBIOS, 128 KiB). */
	readonly biosPath: string;
	/** Absolute path of the VGA option ROM. */
	readonly vgaBiosPath: string;
	/** Absolute path of the tree in v86's filesystem JSON, version 3. */
	readonly treePath: string;
	/** Absolute path of the folder with the tree's files, each named by its SHA-256 (64 hex digits). */
	readonly filesPath: string;
	/**
	 * Absolute path of the folder where the image's boot snapshots are kept, one for each memory size; created when
	 * needed. A machine without one boots cold and leaves one there.
	 */
	readonly bootSnapshotsPath: string;
	/** Commands run once before a boot snapshot is taken, so that their files are in its page cache. */
	readonly warmCommands: readonly string[];
	/** Memory of its machines where nothing else is asked for, MiB. */
	readonly memoryMiB: number;
}
