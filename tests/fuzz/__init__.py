"""Every public function, class and parser, with good arguments and with spoilt ones."""
