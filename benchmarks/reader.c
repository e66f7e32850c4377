// reader: opens many subscriptions, checks that each gets every event once and in order, and measures.
//
//   reader PORT PATH ws|sse SUBSCRIBERS EVENTS SECONDS ECHO
//
// An event is known by two members of its JSON: "id":"<number>", which counts up from FIRST by one, and
// "ts":<nanoseconds of CLOCK_MONOTONIC>, the moment at which it was appended.
//
// stdout gets two lines: "open <seconds>" when all are subscribed, and, when all events came, one JSON object.
// The descriptor ECHO gets one byte when all are subscribed and one for each event, as soon as the first
// subscriber has it: by that a sender can keep exactly one step ahead. EVENTS 0: stay until stdin ends.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST = 1000000,      // the number of the first event: all have as many digits
    IN_FLIGHT = 64,       // handshakes at a time
    CARRY = 2048,         // bytes of a frame whose rest is still to come
    READ = 1 << 18,       // bytes taken from a socket at once
    LONGEST_US = 1000000  // latencies are counted to the microsecond up to this
};

enum state { HEAD, SUBSCRIBING, SUBSCRIBED };

struct subscriber {
    int fd;
    enum state state;
    uint32_t received;
    uint32_t carried;
    char carry[CARRY];
};

static struct subscriber *subscribers;
static const char *path;
static int port, wanted, events, echo, poller;
static bool sse;
static int subscribed;
static uint64_t deliveries, bytes, first_at, last_at;
static uint32_t newest;
static uint64_t latencies[LONGEST_US + 1];
static char buffer[CARRY + READ];

static void fail(const char *sentence) {
    fprintf(stderr, "reader: %s%s%s\n", sentence, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// Finds what follows `name` in a payload. Events look alike, so it is mostly where it was last time.
static const char *member(const char *payload, size_t size, const char *name, size_t *where) {
    size_t length = strlen(name);
    if (*where + length > size || memcmp(payload + *where, name, length) != 0) {
        const char *found = memmem(payload, size, name, length);
        if (!found) return NULL;
        *where = (size_t)(found - payload);
    }
    return payload + *where + length;
}

static void on_event(struct subscriber *it, uint32_t number, uint64_t sent, uint64_t at) {
    if (number != FIRST + it->received) {
        fprintf(stderr, "reader: expected event %u but got %u\n", FIRST + it->received, number);
        exit(1);
    }
    it->received++;
    deliveries++;
    if (it->received > newest) {
        newest = it->received;
        if (write(echo, "e", 1) != 1) fail("cannot echo");
    }
    uint64_t us = at > sent ? (at - sent) / 1000 : 0;
    latencies[us < LONGEST_US ? us : LONGEST_US]++;
    if (!first_at) first_at = at;
    last_at = at;
}

static void on_payload(struct subscriber *it, const char *payload, size_t size, uint64_t at) {
    static size_t where_id, where_ts;
    if (it->state == SUBSCRIBING) {
        if (!memmem(payload, size, "subscribed", 10)) fail("expected the answer to the subscription");
        it->state = SUBSCRIBED;
        subscribed++;
        return;
    }
    const char *sent = member(payload, size, "\"ts\":", &where_ts);
    if (!sent) return;  // a sign of life
    const char *number = member(payload, size, "\"id\":\"", &where_id);
    if (!number) fail("expected an event with an id");
    on_event(it, (uint32_t)strtoul(number, NULL, 10), strtoull(sent, NULL, 10), at);
}

// RFC 6455 section 5.2, unmasked. Returns the size of the frame's head, 0 if it is not whole.
static size_t frame_head(const unsigned char *at, size_t left, size_t *payload) {
    if (left < 4) return 0;
    *payload = at[1];
    if (at[1] < 126) return 2;
    if (at[1] > 126) fail("expected short and unmasked frames");
    *payload = (size_t)at[2] << 8 | at[3];
    return 4;
}

// RFC 9112 section 7.1. Returns the size of the chunk's first line, 0 if it is not whole.
static size_t chunk_head(const char *at, size_t left, size_t *payload) {
    const char *end = memchr(at, '\n', left < 16 ? left : 16);
    if (!end) return 0;
    *payload = strtoul(at, NULL, 16);
    return (size_t)(end - at) + 1;
}

// Takes all whole frames or chunks, and returns how many bytes they were.
static size_t take_payloads(struct subscriber *it, const char *data, size_t size, uint64_t at) {
    size_t done = 0;
    while (done < size) {
        const char *here = data + done;
        size_t left = size - done, payload = 0;
        size_t head = sse ? chunk_head(here, left, &payload)
                          : frame_head((const unsigned char *)here, left, &payload);
        size_t whole = head + payload + (sse ? 2 : 0);
        if (!head || whole > left) break;
        on_payload(it, here + head, payload, at);
        done += whole;
    }
    return done;
}

static size_t take_head(struct subscriber *it, const char *data, size_t size) {
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (memcmp(data, sse ? "HTTP/1.1 200" : "HTTP/1.1 101", 12) != 0) {
        fprintf(stderr, "reader: refused: %.*s\n", (int)(strchr(data, '\r') - data), data);
        exit(1);
    }
    it->state = SUBSCRIBING;
    return (size_t)(end - data) + 4;
}

static void on_readable(struct subscriber *it) {
    memcpy(buffer, it->carry, it->carried);
    ssize_t got = read(it->fd, buffer + it->carried, READ);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) fail("a subscriber was disconnected");
    bytes += (uint64_t)got;
    size_t size = it->carried + (size_t)got, done = 0;
    if (it->state == HEAD) done = take_head(it, buffer, size);
    if (it->state != HEAD) done += take_payloads(it, buffer + done, size - done, now());
    if (size - done > CARRY) fail("expected shorter frames");
    it->carried = (uint32_t)(size - done);
    memcpy(it->carry, buffer + done, it->carried);
}

static void open_one(struct subscriber *it) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    it->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (it->fd < 0 || connect(it->fd, (struct sockaddr *)&address, sizeof address)) fail("cannot connect");
    // A reset at the end instead of thousands of ports in TIME_WAIT, which the next run would lack.
    struct linger reset = {.l_onoff = 1};
    setsockopt(it->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    char request[1024];
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path,
                        sse ? "Accept: text/event-stream\r\n"
                            : "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    if (write(it->fd, request, (size_t)size) != size) fail("cannot send the request");
    fcntl(it->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = it};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, it->fd, &event)) fail("epoll");
}

static void receive(void) {
    struct epoll_event ready[256];
    int count = epoll_wait(poller, ready, 256, 100);
    for (int i = 0; i < count; i++) on_readable(ready[i].data.ptr);
}

static void open_all(void) {
    uint64_t start = now();
    for (int opened = 0; subscribed < wanted;) {
        while (opened < wanted && opened - subscribed < IN_FLIGHT) open_one(&subscribers[opened++]);
        receive();
        if (now() - start > 60000000000) fail("not all could subscribe within 60 s");
    }
    printf("open %.6f\n", (double)(now() - start) / 1e9);
    fflush(stdout);
}

static void stay(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (!poll(&input, 1, 0)) receive();
}

static uint64_t percentile(int percent) {
    uint64_t rank = deliveries * (uint64_t)percent / 100, counted = 0;
    int us = 0;
    while (us < LONGEST_US && (counted += latencies[us]) <= rank) us++;
    return (uint64_t)us;
}

static void report(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"deliveries\":%lu,\"bytes\":%lu,\"seconds\":%.6f,\"p50_us\":%lu,\"p99_us\":%lu,\"cpu\":%.3f}\n",
           deliveries, bytes, (double)(last_at - first_at) / 1e9, percentile(50), percentile(99),
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count != 8) {
        fprintf(stderr, "usage: reader PORT PATH ws|sse SUBSCRIBERS EVENTS SECONDS ECHO\n");
        return 2;
    }
    port = atoi(arguments[1]);
    path = arguments[2];
    sse = strcmp(arguments[3], "sse") == 0;
    wanted = atoi(arguments[4]);
    events = atoi(arguments[5]);
    double patience = atof(arguments[6]);
    echo = atoi(arguments[7]);
    subscribers = calloc((size_t)wanted, sizeof *subscribers);
    poller = epoll_create1(0);
    open_all();
    if (!events) {
        stay();
        return 0;
    }
    if (write(echo, "o", 1) != 1) fail("cannot echo");
    uint64_t start = now(), all = (uint64_t)wanted * (uint64_t)events;
    while (deliveries < all)
        if (receive(), (double)(now() - start) > patience * 1e9) {
            fprintf(stderr, "reader: %lu of %lu deliveries within %.0f s\n", deliveries, all, patience);
            return 1;
        }
    report();
    return 0;
}
