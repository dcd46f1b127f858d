"""The HTTP client and server."""
import http.client
import json
import socket
import time

from measure import MIB, Failed, cpu_ratio, in_turn, pss_kib, server, services


def bench_net(report, build, work):
    answer = work / "answer.json"
    answer.write_text(json.dumps({"status": "ok", "padding": "x" * 2000}))
    with server([build / "bin/static_server", answer, "application/json"]) as url:
        for in_flight, limit in ((16, 1.5), (1, None)):
            ratio, note = cpu_ratio(*in_turn(
                [build / "bin/bench_calls", "service", url, 20000, in_flight],
                [build / "bin/floor_http", url + "/health", 20000, in_flight]))
            report.line("net", f"CPU of a service call ÷ bare libcurl, {in_flight} in flight", ratio, limit, "×", note)
    bench_http_core(report, build, work)


def health_seconds(port):
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/health")
    if connection.getresponse().status != 200:
        raise Failed("/health is not 200")
    connection.close()
    return time.perf_counter() - begin


def bench_http_core(report, build, work):
    with services(build, work) as (process, port):
        health_seconds(port)
        before = pss_kib(process.pid)
        idle = []
        for _ in range(1000):
            one = socket.create_connection(("127.0.0.1", port))
            one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            one.recv(4096)
            idle.append(one)
        grown = (pss_kib(process.pid) - before) / MIB
        report.line("net", "1,000 idle keep-alive connections", grown, 16, "MiB", "PSS, kernel buffers not counted")
        for one in idle:
            one.close()
        # Heads and bodies of which a byte comes now and then.
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(240)]
        for number, one in enumerate(slow):
            head = b"POST /tasks/claim HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
            one.sendall(b"GET /hea" if number % 2 else head)
        waits = [health_seconds(port) for _ in range(20)]
        report.line("net", "/health under 240 slow clients, the slowest of 20", max(waits), 1, "s")
        for one in slow:
            one.close()
