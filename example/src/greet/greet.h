/* Writes "Hello, NAME!" and a newline to standard output; returns 0 if it could. */
int greet(const char *name);
