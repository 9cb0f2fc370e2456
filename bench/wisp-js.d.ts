/** The parts of wisp-js, which has no types of its own, that the bench uses. */
declare module "@mercuryworkshop/wisp-js/server" {
	export namespace server {
		const options: { allow_private_ips: boolean; allow_loopback_ips: boolean };
		class ServerConnection {
			constructor(socket: unknown, path: string, options: { wisp_version: 1 | 2 });
			setup(): Promise<void>;
			run(): Promise<void>;
			create_stream(stream: number, type: number, hostname: string, port: number): void;
		}
	}
	export namespace logging {
		const NONE: number;
		function set_level(level: number): void;
	}
}
