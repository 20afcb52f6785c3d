// A script player over packetdrill's C interface: opens the shim as packetdrill does, plays the
// scene it is told, and says where something else happened than the scene has.
//
//   driver <shim.so> <scene>
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

// The 33 pointers, in order; those of which no scene has a use are left untyped.
static struct {
	void *it;
	void (*free)(void *);
	int (*socket)(void *, int, int, int);
	int (*bind)(void *, int, const struct sockaddr *, socklen_t);
	int (*listen)(void *, int, int);
	int (*accept)(void *, int, struct sockaddr *, socklen_t *);
	int (*connect)(void *, int, const struct sockaddr *, socklen_t);
	ssize_t (*read)(void *, int, void *, size_t);
	void *readv;
	ssize_t (*recv)(void *, int, void *, size_t, int);
	void *recvfrom, *recvmsg;
	ssize_t (*write)(void *, int, const void *, size_t);
	ssize_t (*writev)(void *, int, const struct iovec *, int);
	void *send, *sendto, *sendmsg;
	int (*fcntl)(void *, int, int, ...);
	int (*ioctl)(void *, int, unsigned long, ...);
	int (*close)(void *, int);
	int (*shutdown)(void *, int, int);
	int (*getsockopt)(void *, int, int, int, void *, socklen_t *);
	int (*setsockopt)(void *, int, int, int, const void *, socklen_t);
	int (*poll)(void *, struct pollfd *, nfds_t, int);
	int (*netdev_send)(void *, const void *, size_t);
	int (*netdev_receive)(void *, void *, size_t *, long long *);
	int (*usleep)(void *, useconds_t);
	int (*gettimeofday)(void *, struct timeval *, struct timezone *);
	void *epoll_create, *epoll_ctl, *epoll_wait, *pipe, *splice;
} so;
_Static_assert(sizeof so == 264, "33 pointers");

#define EXPECT(what, is) \
	do { \
		long is_ = (long)(is), found_ = (long)(what); \
		if (found_ != is_) { \
			fprintf(stderr, "line %d: %s is %ld, not %ld (errno %d)\n", __LINE__, #what, \
				found_, is_, errno); \
			exit(1); \
		} \
	} while (0)
#define FAILS(call, why) \
	do { \
		errno = 0; \
		EXPECT(call, -1); \
		EXPECT(errno, why); \
	} while (0)

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static int v6;
static unsigned short our_port = 8080, peer_port = 40000;
static unsigned our_isn, peer_isn = 1000;
static struct { unsigned seq, ack, len; int flags; long long at; } last;

static long long now(void)
{
	struct timeval tv;
	EXPECT(so.gettimeofday(so.it, &tv, NULL), 0);
	return tv.tv_sec * 1000000LL + tv.tv_usec;
}

static unsigned sum(const unsigned char *at, size_t len)
{
	unsigned total = 0;
	for (size_t i = 0; i < len; i++)
		total += i % 2 ? at[i] : at[i] << 8;
	return total;
}

static unsigned short folded(unsigned total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return htons(~total);
}

static socklen_t address(struct sockaddr_storage *at, int peer, int port)
{
	memset(at, 0, sizeof *at);
	if (v6) {
		struct sockaddr_in6 *in = (void *)at;
		in->sin6_family = AF_INET6;
		in->sin6_port = htons(port);
		inet_pton(AF_INET6, peer ? "2001:db8::1" : "fd00::1", &in->sin6_addr);
		return sizeof *in;
	}
	struct sockaddr_in *in = (void *)at;
	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	inet_pton(AF_INET, peer ? "192.0.2.1" : "192.168.0.1", &in->sin_addr);
	return sizeof *in;
}

// A segment of the peer; numbers count from the first of each side.
static void peer_sends(int flags, unsigned seq, unsigned ack, unsigned len, unsigned win)
{
	unsigned char packet[8192] = {0};
	struct sockaddr_storage ours, theirs;
	address(&ours, 0, 0), address(&theirs, 1, 0);
	size_t header = v6 ? 40 : 20;
	struct tcphdr *tcp = (void *)(packet + header);
	unsigned tcp_len = 20 + len;
	tcp->source = htons(peer_port), tcp->dest = htons(our_port);
	tcp->seq = htonl(peer_isn + seq);
	tcp->ack_seq = flags & ACK ? htonl(our_isn + ack) : 0;
	tcp->doff = 5, tcp->th_flags = flags, tcp->window = htons(win);
	for (unsigned i = 0; i < len; i++)
		packet[header + 20 + i] = 'a' + i % 26;
	unsigned pseudo = 6 + tcp_len;
	if (v6) {
		packet[0] = 0x60, packet[4] = tcp_len >> 8, packet[5] = tcp_len, packet[6] = 6;
		packet[7] = 64;
		memcpy(packet + 8, &((struct sockaddr_in6 *)&theirs)->sin6_addr, 16);
		memcpy(packet + 24, &((struct sockaddr_in6 *)&ours)->sin6_addr, 16);
		pseudo += sum(packet + 8, 32);
	} else {
		packet[0] = 0x45, packet[2] = (tcp_len + 20) >> 8, packet[3] = tcp_len + 20;
		packet[8] = 64, packet[9] = 6;
		memcpy(packet + 12, &((struct sockaddr_in *)&theirs)->sin_addr, 4);
		memcpy(packet + 16, &((struct sockaddr_in *)&ours)->sin_addr, 4);
		*(unsigned short *)(packet + 10) = folded(sum(packet, 20));
		pseudo += sum(packet + 12, 8);
	}
	tcp->check = folded(pseudo + sum((void *)tcp, tcp_len));
	EXPECT(so.netdev_send(so.it, packet, header + tcp_len), 0);
}

// Sniffs the next packet; 0 if none will ever come.
static int sniff(void)
{
	unsigned char packet[2048];
	size_t count = sizeof packet;
	EXPECT(so.netdev_receive(so.it, packet, &count, &last.at), 0);
	if (count == 0)
		return 0;
	EXPECT(packet[0] >> 4, v6 ? 6 : 4);
	size_t header = v6 ? 40 : 20;
	struct tcphdr *tcp = (void *)(packet + header);
	if (tcp->th_flags & SYN)
		our_isn = ntohl(tcp->seq);
	our_port = ntohs(tcp->source);
	last.flags = tcp->th_flags;
	last.seq = ntohl(tcp->seq) - our_isn;
	last.ack = ntohl(tcp->ack_seq) - peer_isn;
	last.len = count - header - tcp->doff * 4;
	return 1;
}

static void we_send(int flags, unsigned seq, unsigned ack, unsigned len)
{
	EXPECT(sniff(), 1);
	EXPECT(last.flags, flags);
	EXPECT(last.seq, seq);
	if (flags & ACK)
		EXPECT(last.ack, ack);
	EXPECT(last.len, len);
}

static int open_socket(int flags)
{
	int fd = so.socket(so.it, v6 ? AF_INET6 : AF_INET, SOCK_STREAM | flags, IPPROTO_TCP);
	EXPECT(fd >= 0, 1);
	EXPECT(fcntl(fd, F_GETFD) >= 0, 1); // A real descriptor.
	return fd;
}

static int listener(void)
{
	struct sockaddr_storage at;
	int fd = open_socket(0), on = 1;
	EXPECT(so.setsockopt(so.it, fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
	socklen_t len = address(&at, 0, 8080);
	EXPECT(so.bind(so.it, fd, (void *)&at, len), 0);
	EXPECT(so.listen(so.it, fd, 1), 0);
	return fd;
}

static int connected(int listening)
{
	peer_sends(SYN, 0, 0, 0, 32000);
	we_send(SYN | ACK, 0, 1, 0);
	peer_sends(ACK, 1, 1, 0, 32000);
	struct sockaddr_storage from;
	socklen_t len = sizeof from;
	int fd = so.accept(so.it, listening, (void *)&from, &len);
	EXPECT(fd >= 0, 1);
	EXPECT(ntohs(((struct sockaddr_in *)&from)->sin_port), 40000);
	return fd;
}

static int pending_error(int fd)
{
	int error = -1;
	socklen_t len = sizeof error;
	EXPECT(so.getsockopt(so.it, fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	return error;
}

static int try_connect(int fd)
{
	struct sockaddr_storage at;
	socklen_t len = address(&at, 1, 40000);
	return so.connect(so.it, fd, (void *)&at, len);
}

static void passive(void)
{
	char data[100], again[100];
	int fd = connected(listener());
	peer_sends(ACK | PSH, 1, 1, 10, 32000);
	EXPECT(so.recv(so.it, fd, data, 100, MSG_PEEK), 10);
	EXPECT(so.ioctl(so.it, fd, 0x541b, again), 0); // FIONREAD
	EXPECT(*(int *)again, 10);
	EXPECT(so.read(so.it, fd, data, 4), 4);
	EXPECT(so.read(so.it, fd, data + 4, 100), 6);
	EXPECT(memcmp(data, "abcdefghij", 10), 0);
	FAILS(so.recv(so.it, fd, data, 100, MSG_DONTWAIT), EAGAIN);
	we_send(ACK, 1, 11, 0);
	struct iovec both[] = {{"he", 2}, {"llo", 3}};
	EXPECT(so.writev(so.it, fd, both, 2), 5);
	we_send(ACK | PSH, 1, 11, 5);
	peer_sends(ACK, 11, 6, 0, 32000);
	peer_sends(ACK | FIN, 11, 6, 0, 32000);
	EXPECT(so.read(so.it, fd, data, 100), 0);
	we_send(ACK, 6, 12, 0);
	EXPECT(so.close(so.it, fd), 0);
	we_send(ACK | FIN, 6, 12, 0);
	peer_sends(ACK, 12, 7, 0, 32000);
	EXPECT(sniff(), 0);
	FAILS(so.read(so.it, fd, data, 100), EBADF);
}

static void active(void)
{
	int fd = open_socket(SOCK_NONBLOCK);
	EXPECT(so.fcntl(so.it, fd, F_GETFL, 0), O_RDWR | O_NONBLOCK);
	struct pollfd ready = {fd, POLLOUT, 0};
	FAILS(try_connect(fd), EINPROGRESS);
	FAILS(try_connect(fd), EALREADY);
	EXPECT(so.poll(so.it, &ready, 1, 0), 0);
	we_send(SYN, 0, 0, 0);
	peer_sends(SYN | ACK, 0, 1, 0, 32000);
	we_send(ACK, 1, 1, 0);
	EXPECT(so.poll(so.it, &ready, 1, 0), 1);
	EXPECT(ready.revents, POLLOUT);
	EXPECT(pending_error(fd), 0);
	EXPECT(try_connect(fd), 0);
	FAILS(try_connect(fd), EISCONN);
	EXPECT(so.shutdown(so.it, fd, SHUT_WR), 0);
	we_send(ACK | FIN, 1, 1, 0);
	FAILS(so.write(so.it, fd, "x", 1), EPIPE);
	peer_sends(ACK | PSH, 1, 2, 3, 32000);
	char data[8];
	EXPECT(so.read(so.it, fd, data, 8), 3);
	EXPECT(so.close(so.it, fd), 0);
}

static void refused(void)
{
	int fd = open_socket(SOCK_NONBLOCK);
	FAILS(so.read(so.it, fd, NULL, 1), ENOTCONN);
	FAILS(so.shutdown(so.it, fd, SHUT_RDWR), ENOTCONN);
	FAILS(try_connect(fd), EINPROGRESS);
	we_send(SYN, 0, 0, 0);
	peer_sends(RST | ACK, 0, 1, 0, 0);
	EXPECT(pending_error(fd), ECONNREFUSED);
	EXPECT(pending_error(fd), 0);
}

static void reset(void)
{
	char data[8];
	int fd = connected(listener());
	peer_sends(RST, 1, 0, 0, 0);
	FAILS(so.read(so.it, fd, data, 8), ECONNRESET);
	EXPECT(so.read(so.it, fd, data, 8), 0);
	FAILS(so.write(so.it, fd, data, 8), EPIPE);
	EXPECT(sniff(), 0);
}

static void timed_out(void)
{
	int fd = open_socket(SOCK_NONBLOCK);
	FAILS(try_connect(fd), EINPROGRESS);
	for (int tries = 0; tries < 3; tries++)
		we_send(SYN, 0, 0, 0);
	EXPECT(sniff(), 0);
	EXPECT(pending_error(fd), ETIMEDOUT);
}

static void retransmits(void)
{
	int fd = connected(listener());
	EXPECT(so.write(so.it, fd, "hello", 5), 5);
	we_send(ACK | PSH, 1, 1, 5);
	long long first = last.at;
	we_send(ACK | PSH, 1, 1, 5);
	long long gap = last.at - first;
	EXPECT(gap >= 200000 && gap < 1100000, 1);
	// The same by usleep: what leaves on the way has the time at which it left.
	EXPECT(so.usleep(so.it, 5000000), 0);
	long long then = now();
	we_send(ACK | PSH, 1, 1, 5);
	EXPECT(last.at < then - 1000000, 1);
	EXPECT(now() - now(), -1); // The clock creeps.
}

static void closes_unread(void)
{
	int fd = connected(listener());
	peer_sends(ACK | PSH, 1, 1, 10, 32000);
	we_send(ACK, 1, 11, 0);
	EXPECT(so.close(so.it, fd), 0);
	we_send(RST | ACK, 1, 11, 0);
}

static void lingers_not(void)
{
	struct linger none = {1, 0};
	int fd = connected(listener());
	EXPECT(so.setsockopt(so.it, fd, SOL_SOCKET, SO_LINGER, &none, sizeof none), 0);
	EXPECT(so.close(so.it, fd), 0);
	we_send(RST | ACK, 1, 1, 0);
}

static void keeps_alive(void)
{
	int fd = connected(listener()), on = 1, idle = 10;
	EXPECT(so.setsockopt(so.it, fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle), 0);
	EXPECT(so.setsockopt(so.it, fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on), 0);
	long long start = now();
	we_send(ACK, 0, 1, 0);
	EXPECT((last.at - start + 50000) / 1000000, 10);
	FAILS(so.setsockopt(so.it, fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on), ENOPROTOOPT);
}

static void overfull(void)
{
	int fd = listener();
	FAILS(so.bind(so.it, fd, NULL, 0), EINVAL);
	for (int tries = 0; tries < 3; tries++) {
		peer_port = 40000 + tries;
		peer_sends(SYN, 0, 0, 0, 32000);
		we_send(SYN | ACK, 0, 1, 0);
		peer_sends(ACK, 1, 1, 0, 32000);
	}
	// As on Linux, one more than the backlog waits; the third is turned away.
	we_send(RST | ACK, 1, 1, 0);
	EXPECT(so.close(so.it, fd), 0);
	for (int waiting = 0; waiting < 2; waiting++) {
		EXPECT(sniff(), 1);
		EXPECT(last.flags, RST | ACK);
	}
}

static void closed(void)
{
	struct sockaddr_storage at;
	int fd = open_socket(0);
	socklen_t len = address(&at, 0, 8080);
	EXPECT(so.bind(so.it, fd, (void *)&at, len), 0);
	peer_sends(SYN, 0, 0, 0, 32000);
	EXPECT(sniff(), 1); // A bound socket does not listen.
	EXPECT(last.flags, RST | ACK);
	EXPECT(so.listen(so.it, fd, 1), 0);
	EXPECT(so.close(so.it, fd), 0);
	peer_sends(SYN, 0, 0, 0, 32000);
	EXPECT(sniff(), 1); // And a closed one does not any more.
	EXPECT(last.flags, RST | ACK);
	EXPECT(last.ack, 1);
}

static int shared_fd;
static long long returned_at;

static void *blocking_calls(void *unused)
{
	char data[8];
	int fd = so.accept(so.it, shared_fd, NULL, NULL);
	EXPECT(fd >= 0, 1);
	returned_at = now();
	EXPECT(so.read(so.it, fd, data, 8), 8);
	returned_at = now();
	return unused;
}

static void blocks(void)
{
	pthread_t thread;
	shared_fd = listener();
	pthread_create(&thread, NULL, blocking_calls, NULL);
	usleep(50000); // Of real time: the other thread waits now.
	peer_sends(SYN, 0, 0, 0, 32000);
	we_send(SYN | ACK, 0, 1, 0);
	so.usleep(so.it, 100000);
	long long before = now();
	peer_sends(ACK, 1, 1, 0, 32000);
	so.usleep(so.it, 1000000);
	EXPECT(returned_at - before < 1000, 1);
	before = now();
	usleep(50000);
	peer_sends(ACK | PSH, 1, 1, 4000, 32000); // Several segments in one.
	so.usleep(so.it, 1000000);
	pthread_join(thread, NULL);
	EXPECT(returned_at - before < 1000, 1);
}

static const struct { const char *name; void (*play)(void); } scenes[] = {
	{"passive", passive}, {"active", active}, {"refused", refused}, {"reset", reset},
	{"timed_out", timed_out}, {"retransmits", retransmits}, {"closes_unread", closes_unread},
	{"lingers_not", lingers_not}, {"keeps_alive", keeps_alive}, {"overfull", overfull},
	{"blocks", blocks}, {"closed", closed},
};

int main(int count, char **words)
{
	if (count < 4)
		return 2;
	void (*init)(const char *, void *);
	void *shim = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
	if (!shim) {
		fprintf(stderr, "%s\n", dlerror());
		return 2;
	}
	*(void **)&init = dlsym(shim, "packetdrill_interface_init");
	init(words[2], &so);
	void **pointers = (void **)&so;
	for (int i = 0; i < 33; i++)
		EXPECT(pointers[i] != NULL, 1);
	v6 = strstr(words[2], "ip=fd00") != NULL;
	for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
		if (!strcmp(scenes[i].name, words[3])) {
			scenes[i].play();
			so.free(so.it);
			return 0;
		}
	return 2;
}
