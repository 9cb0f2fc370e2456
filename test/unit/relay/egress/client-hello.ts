import { createServer, type Socket } from "node:net";
import { connect } from "node:tls";

/** What Node's own TLS client says first. */
export async function clientHello(servername: string | undefined): Promise<Buffer> {
	const server = createServer();
	await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
	const bound = server.address();
	if (bound === null || typeof bound === "string") throw new Error("no port");
	const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
	const client = connect({ host: "127.0.0.1", port: bound.port, ...(servername === undefined ? {} : { servername }) });
	client.on("error", () => {});
	const socket = await accepted;
	const bytes = await new Promise<Buffer>((resolve) => socket.once("data", resolve));
	client.destroy();
	socket.destroy();
	await new Promise((closed) => server.close(closed));
	return bytes;
}
