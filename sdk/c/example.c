/* Completes a prompt: {"prompt": "...", "max_tokens": 64}. Greedy; what the model says goes to the log. */
#include "cadenza.h"

const char *cadenza_main(void) {
  cadenza_text arguments;
  cadenza_arguments(&arguments);
  cadenza_text prompt = cadenza_member(arguments, "prompt");
  if (!prompt.size) return "give a \"prompt\" in the arguments";

  cadenza_result answer;
  cadenza_tokenize(prompt.at, prompt.size, false, &answer);
  cadenza_need(&answer);
  cadenza_tokens tokens = answer.tokens;
  cadenza_create(&answer);
  cadenza_need(&answer);

  cadenza_run run = {
    .file = answer.number, .tokens = tokens, .sampler = {.top_p = 1},
    .max_tokens = cadenza_number_member(arguments, "max_tokens", 64), .deliver_every = 64,
  };
  cadenza_decode(&run, &answer);
  cadenza_need(&answer);
  cadenza_handle handle = answer.number;

  cadenza_token *said = cabi_realloc(0, 0, 4, run.max_tokens * sizeof(cadenza_token));
  size_t count = 0;
  do {
    cadenza_await(handle);
    cadenza_take_tokens(handle, &answer);
    cadenza_need(&answer);
    for (size_t i = 0; i < answer.progress.tokens.count && count < run.max_tokens; i++)
      said[count++] = answer.progress.tokens.at[i];
  } while (answer.progress.finish == CADENZA_RUNNING);

  cadenza_detokenize(said, count, false, &answer);
  cadenza_need(&answer);
  cadenza_print_text(answer.text);
  return 0;
}
