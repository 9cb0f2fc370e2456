/** One Ethernet that several machines share: a switch between them, and an address of 10.0.2.0/24 for each. */

import type { Log } from "../log.js";
import { BROADCAST_MAC, GUEST_ADDRESS, type Ipv4, isGroupMac, isMachineMac, type Mac } from "./addresses.js";
import { MAX_FRAME_BYTES, MAX_SHARED_ADDRESSES } from "./limits.js";
import type { FrameLink } from "./link.js";
import { parseArpPacket } from "./wire/arp.js";
import { ETHERTYPE_ARP, ETHERTYPE_IPV4, type EthernetFrame, parseEthernetFrame } from "./wire/ethernet.js";
import { parseIpv4Packet } from "./wire/ipv4.js";

/** One machine's plug; it sends what the relay's own services and the other machines have for it. */
export interface SharedPort extends FrameLink {
	/** That the machine's lease is of: its MAC's, once a frame of it was here. */
	readonly address: Ipv4;
	/**
	 * A frame of the machine. True: it is (also) for the relay itself. False: it was passed on or dropped, and its bytes are
	 * not the caller's any more.
	 */
	receive(frame: Uint8Array): boolean;
	/** The link, having returned false, has drained. */
	drained(): void;
	leave(): void;
}

/**
 * What goes from machine to machine is ARP and IPv4 with the sender's own MAC and address, so that none can speak for
 * another, nor for the relay. A machine that reads too slowly loses frames, as behind any switch.
 */
export class SharedNetwork {
	readonly #log: Log;
	/** The machines that are connected, by MAC. */
	readonly #ports = new Map<Mac, Port>();
	/** The addresses that were given out, oldest use first: a machine that comes back finds its own. */
	readonly #addresses = new Map<Mac, Ipv4>();

	constructor(log: Log) {
		this.#log = log;
	}

	join(machine: string, link: FrameLink): SharedPort {
		return new Port(link, this.#ports, (mac) => this.#lease(mac, machine));
	}

	/** The address for a MAC; undefined where another machine has the MAC, or others all addresses. */
	#lease(mac: Mac, machine: string): Ipv4 | undefined {
		if (this.#ports.has(mac)) {
			this.#log.warn(`machine ${machine} is not heard: another one has its MAC`);
			return undefined;
		}
		const address = this.#addresses.get(mac) ?? this.#freeAddress();
		if (address === undefined) {
			this.#log.warn(`machine ${machine} is not heard: all ${MAX_SHARED_ADDRESSES} addresses are taken`);
			return undefined;
		}
		this.#addresses.delete(mac);
		this.#addresses.set(mac, address);
		return address;
	}

	/** The lowest address that nobody has had, else that of the machine that is away for longest. */
	#freeAddress(): Ipv4 | undefined {
		if (this.#addresses.size < MAX_SHARED_ADDRESSES) {
			const taken = new Set(this.#addresses.values());
			let address = GUEST_ADDRESS;
			while (taken.has(address)) address += 1;
			return address;
		}
		for (const [mac, address] of this.#addresses) {
			if (this.#ports.has(mac)) continue;
			this.#addresses.delete(mac);
			return address;
		}
		return undefined;
	}
}

class Port implements SharedPort {
	readonly #link: FrameLink;
	readonly #ports: Map<Mac, Port>;
	readonly #lease: (mac: Mac) => Ipv4 | undefined;
	#mac: Mac | undefined;
	#address: Ipv4 = GUEST_ADDRESS;
	#isUnheard = false;
	#isFull = false;

	/** `ports`: those of the whole network, by MAC. `lease`: the address for a MAC that no port has. */
	constructor(link: FrameLink, ports: Map<Mac, Port>, lease: (mac: Mac) => Ipv4 | undefined) {
		this.#link = link;
		this.#ports = ports;
		this.#lease = lease;
	}

	get address(): Ipv4 {
		return this.#address;
	}

	send(frame: Uint8Array): boolean {
		const goesOn = this.#link.send(frame);
		if (!goesOn) this.#isFull = true;
		return goesOn;
	}

	close(reason: string): void {
		this.#link.close(reason);
	}

	drained(): void {
		this.#isFull = false;
	}

	leave(): void {
		if (this.#mac !== undefined) this.#ports.delete(this.#mac);
	}

	receive(frame: Uint8Array): boolean {
		const parsed = frame.length > MAX_FRAME_BYTES ? undefined : parseEthernetFrame(frame);
		// The relay counts it.
		if (parsed?.ok !== true || !isMachineMac(parsed.value.source)) return true;
		const ethernet = parsed.value;
		this.#mac ??= this.#bind(ethernet.source);
		if (this.#mac !== ethernet.source) return false;
		const isForAll = isGroupMac(ethernet.destination);
		const target = this.#ports.get(ethernet.destination);
		if (!isForAll && target === undefined) return true;
		if (this.#speaksForItself(ethernet)) {
			target?.sendUnlessFull(frame);
			if (isForAll) this.#flood(frame);
		}
		return ethernet.destination === BROADCAST_MAC;
	}

	#flood(frame: Uint8Array): void {
		for (const port of this.#ports.values()) if (port !== this) port.sendUnlessFull(new Uint8Array(frame));
	}

	/** From another machine. */
	sendUnlessFull(frame: Uint8Array): void {
		if (!this.#isFull) this.send(frame);
	}

	#bind(mac: Mac): Mac | undefined {
		if (this.#isUnheard) return undefined;
		const address = this.#lease(mac);
		this.#isUnheard = address === undefined;
		if (address === undefined) return undefined;
		this.#address = address;
		this.#ports.set(mac, this);
		return mac;
	}

	#speaksForItself({ source, etherType, payload }: EthernetFrame): boolean {
		if (etherType === ETHERTYPE_ARP) {
			const arp = parseArpPacket(payload);
			// Without an address it asks whether somebody has one (RFC 5227 1.1).
			return arp.ok && arp.value.senderMac === source && [this.#address, 0].includes(arp.value.senderAddress);
		}
		if (etherType !== ETHERTYPE_IPV4) return false;
		const packet = parseIpv4Packet(payload);
		return packet.ok && packet.value.source === this.#address;
	}
}
