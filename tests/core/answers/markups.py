"""How models write their reasoning and end their turns: one answer in every mark-up that is in use."""

from __future__ import annotations

THOUGHT = "Need a story about a lamp."
ANSWER = "The keeper climbed the stairs, and the lamp was lit at last before any ship was lost."

_T, _A = THOUGHT, ANSWER
_CALL = '<|start|>assistant<|channel|>commentary to=functions.x <|constrain|>json<|message|>{"a": 1}<|call|>'

REASONING = {
    "think": f"<think>\n{_T}\n</think>\n\n{_A}",
    "upper case": f"<THINK>{_T}</THINK>{_A}",
    "thinking": f"<thinking>{_T}</thinking>{_A}",
    "attributes": f'<think budget="10">{_T}</think >{_A}',
    "seed-oss": f"<seed:think>{_T}</seed:think>{_A}",
    "minimax": f"<mm:think>{_T}</mm:think>{_A}",
    "longcat": f"<longcat_think>{_T}</longcat_think>{_A}",
    "hunyuan": f"<think>\n{_T}\n</think>\n<answer>\n{_A}\n</answer>",
    "ernie": f"<think>\n{_T}\n</think>\n\n<response>\n{_A}\n</response>",
    "exaone": f"<thought>\n{_T}\n</thought>\n\n{_A}",
    "reasoning": f"<reasoning>{_T}</reasoning>{_A}",
    "scratchpad": f"<scratchpad>{_T}</scratchpad>\n{_A}",
    "reflection": f"<thinking>{_T}<reflection>Good.</reflection></thinking><output>{_A}</output>",
    "chinese": f"<思考>{_T}</思考>{_A}",
    "mistral": f"[THINK]{_T}[/THINK]{_A}",
    "pangu": f"[unused16]{_T}[unused17]{_A}",
    "kimi": f"◁think▷{_T}◁/think▷{_A}",
    "full width": f"＜think＞{_T}＜/think＞{_A}",  # noqa: RUF001
    "kimi k3": f"<|open|>think<|sep|>{_T}<|close|>think<|sep|>"
    f"<|open|>response<|sep|>{_A}<|close|>response<|sep|>",
    "command a": f"<|START_THINKING|>{_T}<|END_THINKING|><|START_RESPONSE|>{_A}<|END_RESPONSE|>",
    "sky": f"<|begin_of_thought|>{_T}<|end_of_thought|><|begin_of_solution|>{_A}<|end_of_solution|>",
    "apertus": f"<|inner_prefix|>{_T}<|inner_suffix|>{_A}",
    "gemma 4": f"<|channel>thought\n{_T}<channel|>{_A}",
    "gemini": f"<ctrl94>thought\n{_T}<ctrl95>{_A}",
    "inkling": f"<|message_model|><|content_thinking|>{_T}<|end_message|>"
    f"<|message_model|><|content_text|>{_A}<|end_message|><|content_model_end_sampling|>",
    "harmony": f"<|channel|>analysis<|message|>{_T}<|end|>"
    f"<|start|>assistant<|channel|>final<|message|>{_A}<|return|>",
    "harmony with a call": f"<|start|>assistant<|channel|>analysis<|message|>{_T}<|end|>{_CALL}"
    f"<|start|>assistant<|channel|>final <|constrain|>text<|message|>{_A}<|end|>",
    "bare harmony": f"analysis{_T}assistantfinal{_A}",
    "bare harmony with a call": f"analysis{_T}assistantcommentary to=functions.x json{{}}assistantfinal{_A}",
    "granite": f"Here is my thought process: {_T}\n\nHere is my response: {_A}",
    "granite in short": f"Here's my thought process:\n{_T}\n\nHere's my response:\n{_A}",
}
"""The thought and the answer, by who writes them so."""

TOKENS = {
    "chatml": f"<|im_start|>assistant\n{_A}<|im_end|>\n<|endoftext|>",
    "chatml, thinking": f"<|im_start|>assistant\n<think>\n{_T}\n</think>\n\n{_A}<|im_end|>",
    "the next turn": f"{_A}<|im_end|>\n<|im_start|>user",
    "llama 2": f"<s> {_A} </s>",
    "llama 2, again": f"[/INST] {_A} </s><s>[INST]",
    "llama 3": f"<|start_header_id|>assistant<|end_header_id|>\n\n{_A}"
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    "llama 3, calling": f"<|begin_of_text|>{_A}<|eom_id|>",
    "llama 4": f"<|header_start|>assistant<|header_end|>\n\n{_A}<|eot|>",
    "gemma": f"<start_of_turn>model\n{_A}<end_of_turn>\n<eos>",
    "gemma 4": f"<bos><|turn>model\n{_A}<turn|>",
    "phi": f"<|assistant|>{_A}<|end|><|endoftext|>",
    "glm": f"[gMASK]<sop><|assistant|>\n{_A}<|user|>",
    "deepseek": f"<｜Assistant｜><think>{_T}</think>{_A}<｜end▁of▁sentence｜>",  # noqa: RUF001
    "granite": f"<|start_of_role|>assistant<|end_of_role|>{_A}<|end_of_text|>",
    "exaone": f"[|assistant|]{_A}[|endofturn|]",
    "command": f"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{_A}<|END_OF_TURN_TOKEN|>",
    "kimi": f"<|im_assistant|>assistant<|im_middle|>◁think▷{_T}◁/think▷{_A}<|im_end|>",
    "apertus": f"<|assistant_start|>{_A}<|assistant_end|>",
    "harmony, final alone": f"{_A}<|return|>",
    "mistral": f"[THINK]{_T}[/THINK]{_A}</s>",
    "padding": f"{_A}<|endofprompt|><pad><pad><unk>",
    "names": f"[BOS]{_A}[EOS]",
}
"""The answer, some with the thought, between tokens of chat templates."""

EVERY = {f"reasoning: {name}": text for name, text in REASONING.items()} | {
    f"tokens: {name}": text for name, text in TOKENS.items()
}

CLEAN = (
    ANSWER,
    "a < b, b > c, and <b>bold</b> is <i>not</i> it.",
    "[thinking about it] He said nothing for a while.",
    "[1] is a footnote, and [a link](http://localhost) is one, too.",
    "He wrote <reason>fog</reason> and <thought>ships</thought> into the log.",
    "```xml\n<entry><reason>Fog</reason></entry>\n```",
    "Analysis of the poem: it has three stanzas.",
    "analysis is the first word of this essay, and its final word is another.",
    "analysis\n\nThe poem has three stanzas.",
    "analysis: what the poem says. commentary: what it does not.",
    "The final analysis: assistant keepers are paid by the day.",
    "Here is my thought process: first the lamp, then the stairs.",
    "Here is my response: no.",
    "The token `<|im_end|>` ends a turn, and `</s>` a text.",
    "In ChatML a turn is written so:\n\n```\n<|im_start|>user\nHi<|im_end|>\n```",
    "Models use `<think>` and `[THINK]`; write `[INST]` before a question and end with `</s>`",
    "<s>Old price</s> for a lamp: <s>9</s> 7 crowns, and no more than that.",
    "【思考】灯台守為什麼等待？他不知道。",  # noqa: RUF001
    "x |> f <| y and [|1; 2|] are F#.",
    "He <rethink>thought</rethink> again, and <think/> is no tag.",
    "The list:\n- [ ] lamp\n- [x] oil",
    "Rows of <td>a</td><td>b</td>",
    "The end <3",
    'He asked: "Is 3 < 4?"',
)
"""Texts without marks, some with what looks like one."""
