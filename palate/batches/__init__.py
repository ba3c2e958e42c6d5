"""Records and token shards -> tensors: packed documents, packed chats, padded replies. What a step sees is a function
of (seed, step), so a resumed run sees what the uninterrupted one would have seen."""
