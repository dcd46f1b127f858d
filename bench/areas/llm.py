"""The model client."""
import json
import statistics
import time

from measure import ROUNDS, calls, cpu_ratio, in_turn, install_peer, on_processors, peak_pss, server

OPENAI = "openai@7.59.0"  # npm's, the peer of the model client
EVENTS = 2000  # of a stream


def completion():
    return {
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1, "model": "bench",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "y" * 2048}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 512, "total_tokens": 522},
    }


def completion_events():
    """A streamed answer as OpenAI sends it: some 30 bytes of content a chunk, then why it ended, then the usage."""
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
    head |= {"service_tier": "default", "system_fingerprint": "fp_bench"}

    def chunk(delta, reason=None):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return head | {"choices": [choice], "usage": None}

    usage = {"prompt_tokens": 10, "completion_tokens": EVENTS - 3, "total_tokens": EVENTS + 7}
    chunks = [chunk({"role": "assistant", "content": "", "refusal": None})]
    chunks += [chunk({"content": f"word {number:4} of what is said\n"}) for number in range(EVENTS - 3)]
    chunks += [chunk({}, "stop"), head | {"choices": [], "usage": usage}]
    events = [json.dumps(one, separators=(",", ":")) for one in chunks] + ["[DONE]"]
    return "".join(f"data: {event}\n\n" for event in events)


def bench_llm(report, build, work):
    question = {"model": "bench", "messages": [{"role": "user", "content": "Say what you always say."}],
                "max_tokens": 4000, "temperature": 0.2}
    streamed = question | {"stream": True, "stream_options": {"include_usage": True}}
    files = {"completion": json.dumps(completion()), "question": json.dumps(question),
             "events": completion_events(), "streamed": json.dumps(streamed)}
    for name, text in files.items():
        (work / name).write_text(text)
    peer = install_peer(work, "openai_peer.mjs", OPENAI)

    def programs(kind, url, body):
        """Our client, the bare program and npm's, each for so many calls, so many of them at once."""
        return (lambda *counts: [build / "bin/bench_calls", kind, url, *counts],
                lambda *counts: [build / "bin/floor_http", url + "/chat/completions", *counts, work / body],
                lambda *counts: ["node", peer, kind, url, *counts])

    static = build / "bin/static_server"
    with server([static, work / "completion", "application/json"]) as url:
        own, floor, openai = programs("llm", url, "question")
        bench_model_cpu(report, "a model call", own, floor, openai, 10000, 16, "16 in flight", (1.5, 1 / 18))
        bench_model_cpu(report, "a model call", own, floor, None, 10000, 1, "1 in flight")
        bench_model_process(report, own, floor)
    # On one processor the server writes while the client sleeps, so that each client pays for the events and none for
    # how soon it is woken; on two, waking up for each event costs the bare program most of its time.
    what = f"a {EVENTS:,}-event stream"
    for processors, where, limits in ((1, "1 processor", (2.5, 1 / 9)), (2, "2 processors", (None, None))):
        with on_processors(processors), server([static, work / "events", "text/event-stream", "events"]) as url:
            own, floor, openai = programs("stream", url, "streamed")
            bench_model_cpu(report, what, own, floor, openai, 100, 1, where, limits)
    slowest = statistics.median(calls([build / "bin/bench_calls", "cancel", 64])["slowest_ms"] for _ in range(ROUNDS))
    report.line("llm", "64 waiters on a silent model: the last one awake", slowest, 50, "ms", "after the stop")


def bench_model_cpu(report, what, own, floor, openai, count, in_flight, how, limits=(None, None)):
    """`limits`: against the bare program, and against npm `openai`."""
    rounds = [*in_turn(*(program(count, in_flight) for program in (own, floor, openai) if program))]
    for other, name, limit in zip(rounds[1:], ("bare libcurl", "npm openai"), limits):
        ratio, note = cpu_ratio(rounds[0], other)
        if name == "npm openai":  # ours is counted with its start
            start = statistics.median(result["start_cpu_seconds"] for result in other)
            note += f", without its start ({start * 1000:.0f} ms); 1/{1 / ratio:.0f}"
        report.line("llm", f"CPU of {what} ÷ {name}, {how}", ratio, limit, "×", note)


def bench_model_process(report, own, floor):
    def to_first_answer(command):
        begin = time.perf_counter()
        calls(command)
        return (time.perf_counter() - begin) * 1000

    # An absolute limit: the best of five rounds counts, beside the empty reference program.
    best = min(to_first_answer(own(1, 1)) for _ in range(5))
    empty = min(to_first_answer(floor(1, 1)) for _ in range(5))
    report.line("llm", "exec to first answer", best, 15, "ms", f"the bare program {empty:.1f} ms")
    peak = min(peak_pss(own(20000, 64)) for _ in range(5))
    bare = min(peak_pss(floor(20000, 64)) for _ in range(5))
    report.line("llm", "peak memory, 64 in flight", peak, 20, "MiB", f"PSS; the bare program {bare:.1f} MiB")
