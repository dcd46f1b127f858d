#!/usr/bin/env python3
"""scripted_model.py FILE TEXT LOG

A model service on a free loopback port, whose one idea is to write TEXT into FILE. It speaks what agent programs
speak: Chat Completions, Responses and Messages, whole and streamed. Asked without tools it answers with necrocode's
code changes; asked with tools it calls one that writes, and after that it ends its turn. The first part of the path
says how it behaves:
  /answer/v1      at once
  /hold/v1        once somebody has asked for GET /release
  /drip/v1        with the first event of a stream at once, with the others then
  /loop/v1        with another call of a tool each time, for ever
  /nothing/v1     that it is done
  /context/v1     with 400: the prompt is too long
  /401/v1         with this status and an error, likewise any other; 429 with Retry-After
  /reset/v1       with a reset connection
  /html/v1        with a web page, status 200
  /silence/v1     never
Its first line says where it listens. Each request is a line in LOG: when it had arrived (seconds since 1970), its
path, its size, its body, the key that it carried, the model it asked for, and the usage that its answer tells.
"""
import itertools
import json
import re
import shlex
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RETRY_AFTER = 1  # seconds
# Of every answer, in tokens; the parts of the input do not overlap.
FRESH, CACHED, CACHE_WRITE, OUTPUT = 600, 300, 100, 50
SHELLS = ("exec_command", "bash", "Bash")  # of codex, of pi and opencode, of claude
HTML = "<!DOCTYPE html><html><body>Sign in to go on</body></html>"
TOO_LONG = "This model's maximum context length is 1000 tokens. However, your messages resulted in 1001 tokens."


class Script:
    def __init__(self, file, text):
        changes = [{"file_path": file, "operation": "create", "content": text, "edits": None, "diff": None}]
        self.changes = json.dumps({"code_changes": changes, "explanation": "Adds it."})
        self.file, self.text = file, text
        self.command = f"printf %s {shlex.quote(text)} >{shlex.quote(file)}"
        self.turns = itertools.count(1)

    def tool(self, offered, loops):
        """A call of one of these tools, a name and parameters each, that makes the change; or another one each time."""
        command = f"true {next(self.turns)}" if loops else self.command
        known = {"cmd": command, "command": command, "description": "Writes the file",
                 "path": self.file, "filePath": self.file, "content": self.text}
        names = SHELLS if loops else ("write", *SHELLS)
        name = next(name for name in names if name in offered)
        parameters = offered[name].get("properties", {})
        return name, {key: value for key, value in known.items() if key in parameters}


class Chat:
    """Of each API: the turns of its answers, whole and as events, and its errors."""

    def __init__(self, script, question, behaviour):
        tools = {tool["function"]["name"]: tool["function"].get("parameters", {})
                 for tool in question.get("tools", [])}
        done = behaviour == "nothing" or question["messages"][-1]["role"] == "tool"
        self.question = question
        self.message, self.reason = {"role": "assistant", "content": "Done."}, "stop"
        if not tools:
            self.message["content"] = script.changes
        elif behaviour == "loop" or not done:
            name, arguments = script.tool(tools, behaviour == "loop")
            call = {"index": 0, "id": f"call_{time.time_ns()}", "type": "function",
                    "function": {"name": name, "arguments": json.dumps(arguments)}}
            self.message, self.reason = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        self.head = {"id": "chatcmpl-1", "created": 1, "model": question["model"]}
        read = FRESH + CACHED + CACHE_WRITE
        self.usage = {"prompt_tokens": read, "completion_tokens": OUTPUT, "total_tokens": read + OUTPUT,
                      "prompt_tokens_details": {"cached_tokens": CACHED}}
        self.spent = {"input": FRESH + CACHE_WRITE, "cached": CACHED, "cache_write": 0, "output": OUTPUT}

    def whole(self):
        choice = {"index": 0, "message": self.message, "finish_reason": self.reason}
        return self.head | {"object": "chat.completion", "choices": [choice], "usage": self.usage}

    def events(self):
        chunks = [{"choices": [{"index": 0, "delta": self.message, "finish_reason": None}]},
                  {"choices": [{"index": 0, "delta": {}, "finish_reason": self.reason}]}]
        if (self.question.get("stream_options") or {}).get("include_usage"):
            chunks.append({"choices": [], "usage": self.usage})
        head = self.head | {"object": "chat.completion.chunk"}
        return [f"data: {json.dumps(head | chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]

    @staticmethod
    def error(kind, code, message):
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Responses:
    def __init__(self, script, question, behaviour):
        told = question["input"] if isinstance(question["input"], list) else []
        done = behaviour == "nothing" or (told and told[-1].get("type") == "function_call_output")
        tools = {tool.get("name"): tool.get("parameters", {}) for tool in question.get("tools", [])}
        if tools and (behaviour == "loop" or not done):
            name, arguments = script.tool(tools, behaviour == "loop")
            self.item = {"type": "function_call", "id": "fc_1", "call_id": f"call_{time.time_ns()}",
                         "status": "completed", "name": name, "arguments": json.dumps(arguments)}
        else:
            text = "Done." if tools else script.changes
            self.item = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                         "content": [{"type": "output_text", "text": text, "annotations": []}]}
        read = FRESH + CACHED + CACHE_WRITE
        self.usage = {"input_tokens": read, "input_tokens_details": {"cached_tokens": CACHED},
                      "output_tokens": OUTPUT, "output_tokens_details": {"reasoning_tokens": 0},
                      "total_tokens": read + OUTPUT}
        self.head = {"id": "resp_1", "object": "response", "created_at": 1, "model": question["model"]}
        self.spent = {"input": FRESH + CACHE_WRITE, "cached": CACHED, "cache_write": 0, "output": OUTPUT}

    def whole(self):
        return self.head | {"status": "completed", "output": [self.item], "usage": self.usage}

    def parts(self):
        """The events of a function call's arguments, or of a message's text."""
        place = {"item_id": self.item["id"], "output_index": 0}
        if self.item["type"] == "function_call":
            arguments = self.item["arguments"]
            return ([{"type": "response.function_call_arguments.delta", "delta": arguments} | place,
                     {"type": "response.function_call_arguments.done", "arguments": arguments} | place],
                    self.item | {"status": "in_progress", "arguments": ""})
        part = self.item["content"][0]
        place["content_index"] = 0
        return ([{"type": "response.content_part.added", "part": part | {"text": ""}} | place,
                 {"type": "response.output_text.delta", "delta": part["text"], "logprobs": []} | place,
                 {"type": "response.output_text.done", "text": part["text"], "logprobs": []} | place,
                 {"type": "response.content_part.done", "part": part} | place],
                self.item | {"status": "in_progress", "content": []})

    def events(self):
        parts, begun = self.parts()
        answer = self.head | {"status": "in_progress", "output": []}
        events = [{"type": "response.created", "response": answer},
                  {"type": "response.output_item.added", "output_index": 0, "item": begun}, *parts,
                  {"type": "response.output_item.done", "output_index": 0, "item": self.item},
                  {"type": "response.completed", "response": self.whole()}]
        return [f"event: {event['type']}\ndata: {json.dumps(event | {'sequence_number': number})}\n\n"
                for number, event in enumerate(events)]

    error = Chat.error


class Messages:
    def __init__(self, script, question, behaviour):
        told = next(turn["content"] for turn in reversed(question["messages"]) if turn["role"] == "user")
        done = behaviour == "nothing" or "tool_result" in [block["type"] for block in told if isinstance(block, dict)]
        tools = {tool["name"]: tool.get("input_schema", {}) for tool in question.get("tools", [])}
        self.block, self.reason = {"type": "text", "text": "Done." if tools else script.changes}, "end_turn"
        if tools and (behaviour == "loop" or not done):
            name, arguments = script.tool(tools, behaviour == "loop")
            self.block = {"type": "tool_use", "id": f"toolu_{time.time_ns()}", "name": name, "input": arguments}
            self.reason = "tool_use"
        self.head = {"id": "msg_1", "type": "message", "role": "assistant", "model": question["model"],
                     "stop_sequence": None}
        self.read = {"input_tokens": FRESH, "cache_read_input_tokens": CACHED,
                     "cache_creation_input_tokens": CACHE_WRITE}
        self.spent = {"input": FRESH, "cached": CACHED, "cache_write": CACHE_WRITE, "output": OUTPUT}

    def whole(self):
        return self.head | {"content": [self.block], "stop_reason": self.reason,
                            "usage": self.read | {"output_tokens": OUTPUT}}

    def events(self):
        if self.block["type"] == "text":
            begun = self.block | {"text": ""}
            delta = {"type": "text_delta", "text": self.block["text"]}
        else:
            begun = self.block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(self.block["input"])}
        begin = self.head | {"content": [], "stop_reason": None, "usage": self.read | {"output_tokens": 1}}
        # The counts of a message_delta are those of the message until then.
        half = {"stop_reason": None, "stop_sequence": None}
        end = {"stop_reason": self.reason, "stop_sequence": None}
        events = [{"type": "message_start", "message": begin},
                  {"type": "content_block_start", "index": 0, "content_block": begun},
                  {"type": "ping"},
                  {"type": "content_block_delta", "index": 0, "delta": delta},
                  {"type": "content_block_stop", "index": 0},
                  {"type": "message_delta", "delta": half, "usage": {"output_tokens": OUTPUT // 2}},
                  {"type": "message_delta", "delta": end, "usage": self.read | {"output_tokens": OUTPUT}},
                  {"type": "message_stop"}]
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]

    @staticmethod
    def error(kind, _, message):
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


APIS = {"chat/completions": Chat, "responses": Responses, "messages": Messages}
ERRORS = {401: ("authentication_error", "invalid_api_key"), 402: ("insufficient_quota", "insufficient_quota"),
          429: ("rate_limit_error", "rate_limit_exceeded")}


class Model(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, script, log):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.log = log
        self.writing = threading.Lock()
        self.released = threading.Event()

    def note(self, call):
        with self.writing:
            print(json.dumps(call), file=self.log, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # what is sent at once is written at once

    def do_GET(self):
        if self.path == "/release":
            self.server.released.set()
            self.answer(200, "text/plain", "released\n")
        elif self.path.split("?")[0].endswith("/models"):
            self.tell(200, {"object": "list", "data": []})
        else:
            self.tell(404, Chat.error("not_found_error", None, "there is no such thing"))

    def do_POST(self):
        arrived = time.time()  # its head is read
        body = self.rfile.read(int(self.headers["Content-Length"]))
        place = re.fullmatch(r"/(\w+)(?:/v1)?/(chat/completions|responses|messages)(?:\?.*)?", self.path)
        call = {"arrived": arrived, "path": self.path, "bytes": len(body), "body": body.decode(),
                "key": self.headers.get("x-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")}
        if not place:
            self.server.note(call)
            self.tell(404, Chat.error("not_found_error", None, "there is no such thing"))
            return
        behaviour, question = place[1], json.loads(body)
        api = APIS[place[2]]
        answer = None
        if behaviour in ("answer", "hold", "drip", "loop", "nothing"):
            answer = api(self.server.script, question, behaviour)
        self.server.note(call | {"model": question["model"], "usage": answer and answer.spent})
        if answer is None:
            self.fail(behaviour, api)
            return
        if behaviour == "hold":
            self.server.released.wait()
        if question.get("stream"):
            self.stream(answer.events(), behaviour == "drip")
        else:
            self.tell(200, answer.whole())

    def fail(self, behaviour, api):
        if behaviour.isdigit():
            kind, code = ERRORS.get(int(behaviour), ("api_error", None))
            more = {"Retry-After": RETRY_AFTER} if behaviour == "429" else {}
            self.tell(int(behaviour), api.error(kind, code, "as the script says"), more)
        elif behaviour == "context":
            message = "prompt is too long: 1001 tokens > 1000 maximum" if api is Messages else TOO_LONG
            self.tell(400, api.error("invalid_request_error", "context_length_exceeded", message))
        elif behaviour == "html":
            self.answer(200, "text/html", HTML)
        elif behaviour == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            self.connection.recv(1)  # silence, until the other side has enough
            self.close_connection = True

    def stream(self, events, drips):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in [*events, ""]:
            data = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            if drips:
                self.server.released.wait()

    def tell(self, status, answer, more=None):
        self.answer(status, "application/json", json.dumps(answer), more)

    def answer(self, status, kind, text, more=None):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    with open(sys.argv[3], "a", encoding="utf-8") as told:
        model = Model(Script(sys.argv[1], sys.argv[2]), told)
        print(f"http://127.0.0.1:{model.server_port}", flush=True)
        model.serve_forever()
