// What the studio tells while a model works: Server-Sent Events of a request that was sent with POST.

/** The events of a stream. A piece of the network ends anywhere, in the middle of a letter too. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let carry = "";
  for (;;) {
    const { done, value } = await reader.read();
    carry += done ? decoder.decode() : decoder.decode(value, { stream: true });
    for (let end; (end = carry.indexOf("\n\n")) >= 0; carry = carry.slice(end + 2)) {
      const data = carry.slice(0, end).split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
    if (done) throw new Error("cut off");
  }
}
