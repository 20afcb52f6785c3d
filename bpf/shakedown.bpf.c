/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The steering program: hands the frames that are ours to the AF_XDP socket of the queue they
 * arrived on, and passes everything else to the kernel as if it were not there.
 *
 * Ours is, on the VLAN of the address: IPv4 and IPv6 to our own addresses, whatever the protocol,
 * and ARP and neighbor discovery about them; and, on addresses that the kernel owns and shares with
 * us, TCP to our ports only. A frame too short to tell is the kernel's. So is every frame of a
 * queue that has no socket: the redirect falls back to XDP_PASS.
 *
 * What is ours is written into .rodata and .bss before the program is loaded (the other end of this
 * layout is src/device/steering.rs), so the verifier knows the counts and drops the search steps
 * that a short table does not need.
 *
 * A driver may take the tag out of a frame and tell of it beside it; a veth whose peer is a VLAN
 * device always does. Built with TAG_BESIDE, the program asks for it and puts it back in. That
 * needs Linux 6.8 with BTF and ties the program to one interface, so there are two objects.
 *
 * Needs no header but the kernel's own. Rebuild with scripts/bpf.sh and commit the objects.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define inline __attribute__((always_inline)) inline

#define QUEUES_MAX 256
#define RANGES_MAX 16384 /* a power of two; thousands of single addresses fit */

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(value) __builtin_bswap16(value)
#define be32(value) __builtin_bswap32(value)
#define be64(value) __builtin_bswap64(value)
#else
#define be16(value) (value)
#define be32(value) (value)
#define be64(value) (value)
#endif

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	ETHERTYPE_VLAN = 0x8100, /* a provider's tag, 0x88a8, is no type of ours */
	ETHERTYPE_IPV6 = 0x86dd,
	TCP = 6,
	ICMPV6 = 58,
	NEIGHBOR_SOLICITATION = 135,
	NEIGHBOR_ADVERTISEMENT = 136,
};

/* What we have to do with a range of addresses: the tag their frames bear, 0 for none, and whether
 * the addresses are the kernel's, of which only our ports are ours. */
struct claim {
	__u16 vlan;
	__u16 shared;
};

/* All numbers in host order. */
struct range4 {
	__u32 first, last;
	struct claim claim;
};

struct addr6 {
	__u64 high, low;
};

struct range6 {
	struct addr6 first, last;
	struct claim claim;
	__u32 padding;
};

const volatile struct {
	__u32 ipv4; /* ranges in use */
	__u32 ipv6; /* ranges in use */
} config SEC(".rodata");

struct {
	struct range4 ipv4[RANGES_MAX]; /* sorted, disjoint */
	struct range6 ipv6[RANGES_MAX]; /* sorted, disjoint */
	__u64 ports[65536 / 64];        /* one bit a port, for the shared addresses */
	__u32 zero;                     /* always 0, but the verifier does not know */
} tables SEC(".bss");

struct {
	int (*type)[BPF_MAP_TYPE_XSKMAP];
	__u32 *key;
	__u32 *value;
	int (*max_entries)[QUEUES_MAX];
} sockets SEC(".maps");

struct ethernet {
	__u8 dst[6], src[6];
	__u16 type;
} __attribute__((packed));

struct tag {
	__u16 tci, type;
} __attribute__((packed));

struct arp {
	__u16 hardware, protocol;
	__u8 hardware_bytes, protocol_bytes;
	__u16 operation;
	__u8 sender_mac[6];
	__u32 sender;
	__u8 target_mac[6];
	__u32 target;
} __attribute__((packed));

struct ipv4 {
	__u8 version_ihl, tos;
	__u16 length, id, fragment;
	__u8 ttl, protocol;
	__u16 checksum;
	__u32 src, dst;
} __attribute__((packed));

/* Not packed, as the kernel's own is not: it would be read byte by byte. */
struct ipv6 {
	__u32 version_class_flow;
	__u16 length;
	__u8 next, hop_limit;
	struct addr6 src, dst;
};

/* A neighbor solicitation or advertisement, up to whom it is about. */
struct neighbor {
	__u8 type, code;
	__u16 checksum;
	__u32 flags;
	struct addr6 target;
};

struct ports {
	__u16 src, dst;
} __attribute__((packed));

static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) =
	(void *)BPF_FUNC_redirect_map;

#ifdef TAG_BESIDE
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) =
	(void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *frame, int bytes) =
	(void *)BPF_FUNC_xdp_adjust_head;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *frame, __u16 *type, __u16 *tci)
	SEC(".ksyms");
#endif

/* Binary search in sorted disjoint ranges, the same for both families. The position starts from a
 * value the verifier does not know: it then checks each step once, instead of once for every
 * position the steps before could have led to. Answers the claim on `addr`, or null. */
#define FIND(ranges, count, addr, not_after)                                                      \
	({                                                                                        \
		__u32 at = tables.zero & (RANGES_MAX - 1);                                        \
		_Pragma("clang loop unroll(full)")                                                \
		for (__u32 step = RANGES_MAX / 2; step > 0; step /= 2) {                          \
			if ((count) > step) {                                                     \
				__u32 next = (at + step) & (RANGES_MAX - 1);                      \
				if (next < (count) && not_after((ranges)[next].first, addr))      \
					at = next;                                                \
			}                                                                         \
		}                                                                                 \
		(count) > 0 && not_after((ranges)[at].first, addr) &&                             \
				not_after(addr, (ranges)[at].last)                                \
			? &(ranges)[at].claim                                                     \
			: (const struct claim *)0;                                                \
	})

static inline int not_after4(__u32 a, __u32 b)
{
	return a <= b;
}

static inline int not_after6(struct addr6 a, struct addr6 b)
{
	return a.high < b.high || (a.high == b.high && a.low <= b.low);
}

/* The claim on an address as it stands in a frame, if it is for frames with this tag. */
static inline const struct claim *claim4(__u32 wire, __u32 vlan)
{
	__u32 addr = be32(wire);
	const struct claim *claim = FIND(tables.ipv4, config.ipv4, addr, not_after4);

	return claim && claim->vlan == vlan ? claim : 0;
}

static inline const struct claim *claim6(const struct addr6 *wire, __u32 vlan)
{
	struct addr6 addr = {be64(wire->high), be64(wire->low)};
	const struct claim *claim = FIND(tables.ipv6, config.ipv6, addr, not_after6);

	return claim && claim->vlan == vlan ? claim : 0;
}

static inline int port_is_ours(const struct ports *ports, const void *end)
{
	__u32 port;

	if ((const void *)(ports + 1) > end)
		return 0;
	port = be16(ports->dst);
	return tables.ports[port / 64] >> (port % 64) & 1;
}

static inline int arp_is_ours(const struct arp *arp, const void *end, __u32 vlan)
{
	const struct claim *claim;

	if ((const void *)(arp + 1) > end)
		return 0;
	claim = claim4(arp->target, vlan);
	/* The sender too: someone else claiming our address is our business. */
	if (!claim || claim->shared)
		claim = claim4(arp->sender, vlan);
	return claim && !claim->shared;
}

static inline int ipv4_is_ours(const struct ipv4 *ip, const void *end, __u32 vlan)
{
	const struct claim *claim;
	__u32 header_bytes;

	if ((const void *)(ip + 1) > end)
		return 0;
	claim = claim4(ip->dst, vlan);
	if (!claim)
		return 0;
	if (!claim->shared)
		return 1;
	/* Fragments after the first have no ports: the kernel reassembles what is to its address. */
	if (ip->protocol != TCP || ip->fragment & be16(0x3fff))
		return 0;
	header_bytes = (ip->version_ihl & 15) * 4;
	if (header_bytes < sizeof(*ip))
		return 0;
	return port_is_ours((const void *)ip + header_bytes, end);
}

static inline int ipv6_is_ours(const struct ipv6 *ip, const void *end, __u32 vlan)
{
	const struct neighbor *about = (const void *)(ip + 1);
	const struct claim *claim;

	if ((const void *)(ip + 1) > end)
		return 0;
	claim = claim6(&ip->dst, vlan);
	if (claim) {
		/* Behind extension headers all is the kernel's: a fragment has no ports. */
		return !claim->shared || (ip->next == TCP && port_is_ours((const void *)about, end));
	}
	/* Solicitations come to a multicast group, and so do advertisements that nobody asked for:
	 * someone else claiming our address. */
	if (ip->next != ICMPV6 || (const void *)(about + 1) > end)
		return 0;
	if (about->type != NEIGHBOR_SOLICITATION && about->type != NEIGHBOR_ADVERTISEMENT)
		return 0;
	claim = claim6(&about->target, vlan);
	return claim && !claim->shared;
}

/* True if the frame is ours; `vlan` is of the tag that was taken out of it, or 0. */
static inline int is_ours(const struct xdp_md *frame, __u32 vlan)
{
	const void *at = (const void *)(long)frame->data, *end = (const void *)(long)frame->data_end;
	const struct ethernet *ethernet = at;
	__u16 type;

	at = ethernet + 1;
	if (at > end)
		return 0;
	type = ethernet->type;
	if (vlan == 0 && type == be16(ETHERTYPE_VLAN)) {
		const struct tag *tag = at;
		at = tag + 1;
		if (at > end)
			return 0;
		vlan = be16(tag->tci) & 0xfff;
		type = tag->type;
	}
	if (type == be16(ETHERTYPE_IPV4))
		return ipv4_is_ours(at, end, vlan);
	if (type == be16(ETHERTYPE_IPV6))
		return ipv6_is_ours(at, end, vlan);
	if (type == be16(ETHERTYPE_ARP))
		return arp_is_ours(at, end, vlan);
	return 0;
}

#ifdef TAG_BESIDE
/* Puts a tag behind the addresses, as it was on the wire. */
static inline int put_back(struct xdp_md *frame, __u16 tci)
{
	struct ethernet *ethernet;
	struct tag *tag;

	if (bpf_xdp_adjust_head(frame, -(int)sizeof(*tag)))
		return 0;
	ethernet = (void *)(long)frame->data;
	tag = (void *)(ethernet + 1);
	if ((void *)(tag + 1) > (void *)(long)frame->data_end)
		return 0;
	__builtin_memmove(ethernet, (void *)ethernet + sizeof(*tag), sizeof(*ethernet) - 2);
	ethernet->type = be16(ETHERTYPE_VLAN);
	tag->tci = be16(tci);
	return 1;
}
#endif

SEC("xdp") int steer(struct xdp_md *frame)
{
	__u32 queue = frame->rx_queue_index;
	__u16 tci = 0;
#ifdef TAG_BESIDE
	__u16 tag_type = 0;

	if (bpf_xdp_metadata_rx_vlan_tag(frame, &tag_type, &tci))
		tci = 0;
	else if (tag_type != be16(ETHERTYPE_VLAN))
		return XDP_PASS;
#endif
	if (!is_ours(frame, tci & 0xfff))
		return XDP_PASS;
#ifdef TAG_BESIDE
	/* The kernel would see the tag twice: it is put back only if the frame stays here. */
	if (tci & 0xfff && (!bpf_map_lookup_elem(&sockets, &queue) || !put_back(frame, tci)))
		return XDP_PASS;
#endif
	return bpf_redirect_map(&sockets, queue, XDP_PASS);
}

/* The kernel lends some helpers to GPL programs only. None of those is used; still, the label must
 * be one it knows. */
char license_text[] SEC("license") = "Dual MIT/GPL";
const char source_hash[] SEC("source") = SOURCE_SHA256;
