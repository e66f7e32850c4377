// rawloop: what one core can do with one send() for each event and subscriber, and no protocol at all.
//
//   rawloop SUBSCRIBERS EVENTS SIZE
//
// Prints the port it listens on. Answers each connection as a WebSocket server that accepts and
// subscribes. When a byte comes on stdin, it sends EVENTS frames of SIZE bytes of payload to everybody,
// as fast as it can; then it waits until stdin ends. The events look as `reader.c` expects them.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char ACCEPTED[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    "\x81\x11{\"subscribed\":{}}";

static void fail(const char *sentence) {
    fprintf(stderr, "rawloop: %s: %s\n", sentence, strerror(errno));
    exit(1);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int listen_on_any_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) fail("cannot listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static int accept_one(int listener) {
    char request[4096];
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0 || read(fd, request, sizeof request) <= 0) fail("cannot accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (write(fd, ACCEPTED, sizeof ACCEPTED - 1) < 0) fail("cannot answer");
    return fd;
}

// Writes a frame with an event of `size` bytes, and returns the frame's size. RFC 6455 section 5.2.
static size_t write_frame(char *frame, int number, size_t size) {
    char *payload = frame + 4;
    int used = sprintf(payload, "{\"id\":\"%d\",\"ts\":%lu,\"pad\":\"", 1000000 + number, now());
    memset(payload + used, 'x', size - (size_t)used);
    memcpy(payload + size - 2, "\"}", 2);
    memcpy(frame, (char[]){(char)0x81, 126, (char)(size >> 8), (char)size}, 4);
    return size + 4;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: rawloop SUBSCRIBERS EVENTS SIZE\n");
        return 2;
    }
    int subscribers = atoi(arguments[1]), events = atoi(arguments[2]);
    size_t size = (size_t)atoi(arguments[3]);
    if (size < 126 || size > 4000) {
        fprintf(stderr, "rawloop: expected a size of 126 to 4000 bytes\n");
        return 2;
    }
    int listener = listen_on_any_port(), *fds = calloc((size_t)subscribers, sizeof *fds);
    for (int i = 0; i < subscribers; i++) fds[i] = accept_one(listener);
    char byte, frame[4096];
    if (read(STDIN_FILENO, &byte, 1) != 1) return 1;
    for (int number = 0; number < events; number++) {
        size_t length = write_frame(frame, number, size);
        for (int i = 0; i < subscribers; i++)
            if (send(fds[i], frame, length, MSG_NOSIGNAL) != (ssize_t)length) fail("cannot send");
    }
    while (read(STDIN_FILENO, &byte, 1) > 0) continue;
    return 0;
}
