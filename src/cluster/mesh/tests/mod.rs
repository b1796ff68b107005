mod joining;
