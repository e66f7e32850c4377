// returner: holds many WebSocket subscriptions to one channel, and comes back with its positions.
//
//   returner PORT CHANNEL SUBSCRIBERS WINDOW_MS
//
// Each event has a member "n":<number> that counts up by one. For each line on stdin it prints one JSON
// object on stdout: what of the subscriptions is live and what they have seen. It ends when stdin does.
//
// Who loses a connection without a goodbye comes back after a random delay of up to WINDOW_MS; who was told
// when, then.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CARRY = 4096,      // bytes of a frame whose rest is still to come
    READ = 1 << 18,    // bytes taken from a socket at once
    POSITION = 64,     // bytes of a position
    IN_FLIGHT = 256,   // handshakes at a time, at first
    TICK_MS = 5        // how often those are looked for who are due
};

enum state { AWAY, CONNECTING, HEAD, SUBSCRIBING, LIVE };

struct subscriber {
    int fd;
    enum state state;
    uint64_t due;      // when to come back
    uint64_t newest;   // number of the newest event; 0 for none yet
    bool gap;          // it was told that something is missing before the next event
    uint32_t carried;
    char *carry;
    char position[POSITION];
};

static struct subscriber *subscribers;
static int port, wanted, window_ms, poller, in_flight;
static const char *channel;
static uint64_t returns, recovered, gaps, missed, repeated;
static char buffer[CARRY + READ];

static void fail(const char *sentence) {
    fprintf(stderr, "returner: %s%s%s\n", sentence, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

// Ends a connection; it comes back after a delay, or a random one if that is negative.
static void leave(struct subscriber *it, int delay_ms) {
    if (it->state == CONNECTING || it->state == HEAD || it->state == SUBSCRIBING) in_flight--;
    if (it->fd >= 0) close(it->fd);
    it->fd = -1;
    it->state = AWAY;
    it->carried = 0;
    it->due = now_ms() + (uint64_t)(delay_ms >= 0 ? delay_ms : random() % (window_ms + 1));
}

static void come(struct subscriber *it) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    it->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (it->fd < 0) fail("no socket");
    // A reset at the end instead of thousands of ports in TIME_WAIT.
    struct linger reset = {.l_onoff = 1};
    setsockopt(it->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    in_flight++;
    it->state = CONNECTING;
    if (connect(it->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        leave(it, -1);
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = it};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, it->fd, &event)) fail("epoll");
}

static void on_connected(struct subscriber *it) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(it->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    char request[512];
    int length = snprintf(request, sizeof request,
                          "GET /ws?channel=%s%s%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                          channel, *it->position ? "&after=" : "", it->position);
    if (error || write(it->fd, request, (size_t)length) != length) {
        leave(it, -1);
        return;
    }
    it->state = HEAD;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = it};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, it->fd, &event)) fail("epoll");
}

// Finds what follows the last `name` in a payload.
static const char *last_member(const char *payload, size_t size, const char *name) {
    size_t length = strlen(name);
    for (const char *at = payload + size - length; at >= payload; at--)
        if (memcmp(at, name, length) == 0) return at + length;
    return NULL;
}

static void stand(struct subscriber *it, const char *payload, size_t size) {
    const char *at = last_member(payload, size, "\"position\":\"");
    const char *end = at ? memchr(at, '"', size - (size_t)(at - payload)) : NULL;
    if (!end || end - at >= POSITION) fail("expected a position");
    memcpy(it->position, at, (size_t)(end - at));
    it->position[end - at] = 0;
}

static void on_event(struct subscriber *it, uint64_t number) {
    if (it->newest && !it->gap) {
        if (number > it->newest + 1) missed += number - it->newest - 1;
        if (number <= it->newest) repeated++;
    }
    it->gap = false;
    it->newest = number;
}

static void on_subscribed(struct subscriber *it, const char *payload, size_t size) {
    bool came_back = *it->position;
    bool whole = memmem(payload, size, "\"recovered\":true", 16) != NULL;
    returns += came_back;
    recovered += came_back && whole;
    gaps += !whole;
    it->gap |= !whole;
    it->state = LIVE;
    in_flight--;
}

// Returns false if the connection has ended with it.
static bool on_text(struct subscriber *it, const char *payload, size_t size) {
    const char *found = memmem(payload, size, "\"goodbye\"", 9);
    if (found) {
        const char *retry = memmem(payload, size, "\"retry_ms\":", 11);
        leave(it, retry ? atoi(retry + 11) : -1);
        return false;
    }
    if (memmem(payload, size, "\"error\"", 7)) {
        leave(it, -1);
        return false;
    }
    if (it->state == SUBSCRIBING) on_subscribed(it, payload, size);
    else if ((found = memmem(payload, size, "\"n\":", 4))) on_event(it, strtoull(found + 4, NULL, 10));
    stand(it, payload, size);
    return true;
}

// Takes one frame (RFC 6455 section 5.2, unmasked). Returns its size, 0 if it is not whole, -1 at the end.
static ssize_t take_frame(struct subscriber *it, const char *data, size_t left) {
    const unsigned char *at = (const unsigned char *)data;
    size_t head = 2, size;
    if (left < head) return 0;
    if ((size = at[1]) > 126) fail("expected short and unmasked frames");
    if (size == 126) {
        head = 4;
        if (left < head) return 0;
        size = (size_t)at[2] << 8 | at[3];
    }
    if (left < head + size) return 0;
    int opcode = at[0] & 15;
    if (opcode == 9 && write(it->fd, "\x8a\x80\0\0\0\0", 6) != 6) opcode = 8;
    if (opcode == 8) {
        leave(it, -1);
        return -1;
    }
    if (opcode == 1 && !on_text(it, data + head, size)) return -1;
    return (ssize_t)(head + size);
}

static void on_readable(struct subscriber *it) {
    if (it->carried) memcpy(buffer, it->carry, it->carried);
    ssize_t got = read(it->fd, buffer + it->carried, READ);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        leave(it, -1);
        return;
    }
    size_t size = it->carried + (size_t)got, done = 0;
    if (it->state == HEAD) {
        const char *end = memmem(buffer, size, "\r\n\r\n", 4);
        if (end && memcmp(buffer, "HTTP/1.1 101", 12) != 0) {
            leave(it, -1);
            return;
        }
        if (end) {
            done = (size_t)(end - buffer) + 4;
            it->state = SUBSCRIBING;
        }
    }
    while (it->state >= SUBSCRIBING) {
        ssize_t taken = take_frame(it, buffer + done, size - done);
        if (taken < 0) return;
        if (!taken) break;
        done += (size_t)taken;
    }
    it->carried = (uint32_t)(size - done);
    if (it->carried > CARRY) fail("expected shorter frames");
    if (it->carried && !it->carry) it->carry = malloc(CARRY);
    if (it->carried) memcpy(it->carry, buffer + done, it->carried);
}

static void report(void) {
    int live = 0;
    uint64_t lowest = UINT64_MAX;
    for (int i = 0; i < wanted; i++) {
        live += subscribers[i].state == LIVE;
        if (subscribers[i].newest < lowest) lowest = subscribers[i].newest;
    }
    printf("{\"live\":%d,\"lowest\":%lu,\"returns\":%lu,\"recovered\":%lu,\"gaps\":%lu,\"missed\":%lu,"
           "\"repeated\":%lu}\n",
           live, lowest, returns, recovered, gaps, missed, repeated);
    fflush(stdout);
}

// Answers what was asked; returns false at the end of stdin.
static bool asked(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[64];
    while (poll(&input, 1, 0) > 0) {
        ssize_t got = read(STDIN_FILENO, line, sizeof line);
        if (got <= 0) return false;
        for (ssize_t i = 0; i < got; i++)
            if (line[i] == '\n') report();
    }
    return true;
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: returner PORT CHANNEL SUBSCRIBERS WINDOW_MS\n");
        return 2;
    }
    port = atoi(arguments[1]);
    channel = arguments[2];
    wanted = atoi(arguments[3]);
    window_ms = atoi(arguments[4]);
    subscribers = calloc((size_t)wanted, sizeof *subscribers);
    for (int i = 0; i < wanted; i++) subscribers[i].fd = -1;
    poller = epoll_create1(0);
    uint64_t looked = 0;
    while (asked()) {
        uint64_t now = now_ms();
        if (now >= looked + TICK_MS) {
            looked = now;
            for (int i = 0; i < wanted && in_flight < IN_FLIGHT; i++)
                if (subscribers[i].state == AWAY && subscribers[i].due <= now) come(&subscribers[i]);
        }
        struct epoll_event ready[256];
        int found = epoll_wait(poller, ready, 256, TICK_MS);
        for (int i = 0; i < found; i++) {
            struct subscriber *it = ready[i].data.ptr;
            if (it->state == CONNECTING) on_connected(it);
            else if (it->state != AWAY) on_readable(it);
        }
    }
    return 0;
}
